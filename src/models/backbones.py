"""Pre-trained Vision Transformers: from the hub, from a folder, or the tiny one."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from src.data.pixel_values import PixelValues
from src.data.samples import load_tensors
from src.errors import UserError
from src.experiments import TINY_BACKBONE, Experiment, Paths
from src.models.seen import RECORD, check_unseen, read_record
from src.storage.files import digest

WAYS_OUT = (
    "give --backbone DIR, a folder in transformers' format (config.json, model.safetensors, "
    "preprocessor_config.json), or --backbone tiny, which needs no hub"
)


@dataclass(frozen=True)
class Backbone:
    """A pre-trained ViT, frozen.

    Attributes:
        model: transformers' `ViTForImageClassification`, float32, in eval mode; its head is not
            used.
        pixel_values: Makes the model's inputs of images.
        weights_hash: SHA-256 of the weights in the order of the model, without the head's. Names
            are left out, because releases of transformers rename layers.
    """

    model: nn.Module
    pixel_values: PixelValues
    weights_hash: str

    @classmethod
    def of(cls, model: nn.Module, pixel_values: PixelValues) -> Backbone:
        """Return a backbone that is in memory already."""
        weights_hash = digest(list(model.base_model.parameters()))
        return cls(model.eval().requires_grad_(False), pixel_values, weights_hash)


def load_backbone_of(experiment: Experiment, paths: Paths) -> Backbone:
    """Load the backbone of an experiment.

    Raises:
        UserError: See `load_backbone`; or it is the tiny one, and not the one that its folder
            speaks of, or has seen images of the experiment.
    """
    if experiment.backbone != TINY_BACKBONE:
        return load_backbone(experiment.backbone, random_crop=experiment.random_crop)
    backbone, _ = load_tiny(experiment, paths, experiment.splits.values())
    return backbone


def tiny_command(experiment: Experiment, paths: Paths) -> str:
    """Return the command that pre-trains the tiny backbone of an experiment's task."""
    options = ("--experiment", experiment.name, "--backbone", TINY_BACKBONE)
    return paths.command(experiment.training_script, *options)


def load_tiny(experiment: Experiment, paths: Paths, splits: Iterable[str]) -> tuple[Backbone, dict]:
    """Load the tiny backbone of an experiment's task, and what its folder says of it.

    Args:
        experiment: The experiment.
        paths: Every path below the root.
        splits: The splits of the task of which it must have seen no sample.

    Raises:
        UserError: It is not there, is not the one that its folder speaks of, or has seen a sample.
    """
    folder, task = paths.tiny_backbone(experiment.task.name), experiment.task
    make = tiny_command(experiment, paths)
    record = read_record(folder, make)
    for split in splits:
        images = load_tensors(paths, task, split)["images"]
        check_unseen(record, folder, images, f"{task.name} {split}", make)
    backbone = load_backbone(str(folder), random_crop=experiment.random_crop)
    if backbone.weights_hash != record.get("weights"):
        raise UserError(
            f"the weights of the backbone {folder} are not those whose pre-training its {RECORD} "
            f"tells: pre-train it again, and fine-tune on it, with: {make} --overwrite"
        )
    return backbone, record


def load_backbone(source: str, *, random_crop: bool = False) -> Backbone:
    """Load a backbone from a folder or from the hub.

    The state of torch's global generator is left as it was.

    Args:
        source: A folder, or a name on the hub.
        random_crop: Whether its inputs are random crops.

    Raises:
        UserError: The source cannot be reached, or is no ViT in transformers' format.
    """
    with quiet_transformers(), torch.random.fork_rng():
        from transformers import AutoConfig, AutoImageProcessor, ViTForImageClassification

        try:
            config = AutoConfig.from_pretrained(source)
            if config.model_type != "vit":
                raise UserError(f"{source} is a {config.model_type!r}, not a ViT: {WAYS_OUT}")
            processor = AutoImageProcessor.from_pretrained(source)
            model, report = ViTForImageClassification.from_pretrained(
                source,
                ignore_mismatched_sizes=True,  # the head of the pre-training
                # Fused attention has no forward-mode derivative, which Hessian products need.
                attn_implementation="eager",
                output_loading_info=True,
            )
        except UserError:
            raise
        except Exception as error:  # its libraries raise errors of many kinds for the same cause
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise UserError(f"cannot load the backbone {source} ({reason}): {WAYS_OUT}") from error
    body = {name for name, _ in model.base_model.named_parameters(prefix=model.base_model_prefix)}
    wrong = {key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]}
    missing = sorted(body & (set(report["missing_keys"]) | wrong))
    if missing:
        raise UserError(
            f"the weights of the backbone {source} lack {missing[0]} and {len(missing) - 1} more "
            f"of the {len(body)} that a ViT of its config.json has: {WAYS_OUT}"
        )
    pixel_values = PixelValues.of_processor(processor, random_crop=random_crop)
    edge = config.image_size
    expected = (edge, edge) if isinstance(edge, int) else tuple(edge)
    if pixel_values.size != expected:
        raise UserError(
            f"{source}: preprocessor_config.json makes images of {pixel_values.size}, config.json "
            f"takes {expected}"
        )
    return Backbone.of(model.float(), pixel_values)


def is_there(folder: Path) -> bool:
    """Say whether a folder holds a backbone that was saved whole."""
    return all((folder / name).is_file() for name in ("config.json", "preprocessor_config.json"))


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep progress bars, load reports and retries from burying the one line that matters."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import logging

    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
