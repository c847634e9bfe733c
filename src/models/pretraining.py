"""The tiny backbone: a small ViT, pre-trained here on images that a task does not use."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from src.data.pixel_values import PixelValues
from src.data.samples import load_tensors
from src.data.sources import load_splits
from src.data.subsets import split_names
from src.errors import UserError
from src.experiments import Experiment, Paths, Task
from src.models.backbones import is_there, load_tiny, quiet_transformers, tiny_command
from src.models.seen import RECORD, fingerprints
from src.progress import progress
from src.storage.files import check_settings, digest, save, write_atomically

SEED = 0


@dataclass(frozen=True)
class Recipe:
    """How the tiny backbone of a source is made.

    LoRA on a narrow network learns too little in the few steps that a small subset has, so the
    width is what is not saved on.
    """

    epochs: int
    patch_size: int
    hidden_size: int = 192
    n_layers: int = 4
    n_heads: int = 3
    intermediate_size: int = 384
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.05


RECIPES = {
    "digits": Recipe(epochs=40, patch_size=7),
    "mnist": Recipe(epochs=2, patch_size=7),
    "cifar10": Recipe(epochs=4, patch_size=8),
}


@dataclass(frozen=True)
class Pool:
    """Images that a task does not use.

    Attributes:
        images: uint8 (N, C, H, W).
        labels: Their classes, numbered from 0 on, int64 (N,).
        origin: Where they came from, for people.
    """

    images: Tensor
    labels: Tensor
    origin: str


def recipe_of(task: Task) -> Recipe:
    """Return how the tiny backbone of a task is made.

    Raises:
        UserError: There is no recipe for the task's source.
    """
    if task.source not in RECIPES:
        raise UserError(
            f"there is no recipe for a tiny backbone on images of {task.source}, only for "
            f"{', '.join(RECIPES)} (RECIPES in src/models/pretraining.py): add one, or give "
            "--backbone NAME_OR_DIR"
        )
    return RECIPES[task.source]


def unused(task: Task, used: Tensor, source: Path | None) -> tuple[Pool, Pool]:
    """Return what to pre-train on and what to hold out, none of it used by the task.

    Where the source has classes that are not the task's, it is the images of these classes, else
    all images; of either those that the task does not use. What is held out comes from the
    source's test split, or is a fifth of the one pool that there is, without images and classes
    that are not to be seen, or have not been.

    Args:
        task: The task.
        used: The images in the task's subsets, uint8 (N, C, H, W).
        source: See `load_splits`.

    Raises:
        UserError: The source cannot be reached, or has too few such images.
    """
    excluded, classes, pools = fingerprints(used), None, []
    for split, full in load_splits(task, source)[1].items():
        others = ~np.isin(full.labels, task.classes)
        chosen = np.flatnonzero(others if others.any() else np.ones_like(others))
        if task.one_pool:
            chosen = np.random.default_rng(SEED).permutation(chosen)
            n_held_out = len(chosen) // 5
            chosen = chosen[n_held_out:] if split == "train" else chosen[:n_held_out]
        images, labels = full.inputs(chosen.tolist()), full.labels[chosen]
        if classes is None:
            classes = np.unique(labels)
        seen = fingerprints(images)
        kept = ~torch.isin(seen, excluded) & torch.from_numpy(np.isin(labels, classes))
        excluded = torch.cat([excluded, seen])
        positions = torch.from_numpy(np.searchsorted(classes, labels))
        pools.append(Pool(images[kept], positions[kept], full.origin))
    n_needed = recipe_of(task).batch_size
    if len(pools[0].labels) < n_needed or not len(pools[1].labels):
        raise UserError(
            f"{pools[0].origin} has {len(pools[0].labels)} images to pre-train on and "
            f"{len(pools[1].labels)} to hold out that {task.name} does not use; it takes "
            f"{n_needed} and 1"
        )
    return pools[0], pools[1]


def pretrain_tiny(
    experiment: Experiment,
    paths: Paths,
    source: Path | None,
    device: torch.device,
    *,
    overwrite: bool,
) -> None:
    """Pre-train the tiny backbone of an experiment's task, unless there is one that it can take.

    It can take one that was made by the same recipe on images that are in none of the task's
    subsets as they are now. Prints on how many, and the accuracy on held-out ones.

    Args:
        experiment: The experiment.
        paths: Every path below the root.
        source: See `load_splits`.
        device: Where it is trained.
        overwrite: Replace a backbone that is there and that the task cannot take.

    Raises:
        UserError: There is one that the task cannot take and `overwrite` is False, the source
            cannot be reached, or the folder cannot be written.
    """
    task, recipe = experiment.task, recipe_of(experiment.task)
    folder = paths.tiny_backbone(task.name)
    settings = {"recipe": asdict(recipe), "seed": SEED}
    if is_there(folder):
        try:
            _, record = load_tiny(experiment, paths, split_names(task))
            found = {key: record.get(key) for key in settings}
            check_settings(folder, found, settings, tiny_command(experiment, paths))
        except UserError:
            if not overwrite:
                raise
        else:
            _tell(folder, "was pre-trained before", record, task)
            return
    used = torch.cat([load_tensors(paths, task, s)["images"] for s in split_names(task)])
    train, held_out = unused(task, used, source)
    size = task.input_shape[1:]
    pixel_values = PixelValues(size)
    torch.manual_seed(SEED)
    model = tiny_vit(recipe, size[0], int(train.labels.max()) + 1).to(device)
    fit(model, train, pixel_values, recipe, f"pre-training {folder.name}")
    accuracy = _accuracy(model, held_out, pixel_values)
    processor = ViTImageProcessor(
        size={"height": size[0], "width": size[1]},
        image_mean=list(pixel_values.mean),
        image_std=list(pixel_values.std),
    )
    record = {
        **settings,
        "origin": train.origin,
        "seen": fingerprints(train.images),
        "n_held_out": len(held_out.labels),
        "accuracy": accuracy,
        "weights": digest(list(model.cpu().base_model.parameters())),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "device": device.type,
    }
    _save_folder(folder, model, processor, record)
    _tell(folder, "pre-trained", record, task)


def _tell(folder: Path, done: str, record: dict, task: Task) -> None:
    print(
        f"{folder}: {done} on {len(record['seen'])} images of {record['origin']} that {task.name} "
        f"does not use, accuracy {record['accuracy']:.1%} on {record['n_held_out']} held-out ones",
        flush=True,
    )


def tiny_vit(recipe: Recipe, image_size: int, n_classes: int) -> ViTForImageClassification:
    """Return the network, freshly initialised from torch's global generator."""
    return ViTForImageClassification(
        ViTConfig(
            image_size=image_size,
            patch_size=recipe.patch_size,
            hidden_size=recipe.hidden_size,
            num_hidden_layers=recipe.n_layers,
            num_attention_heads=recipe.n_heads,
            intermediate_size=recipe.intermediate_size,
            num_labels=n_classes,
        )
    )


def fit(
    model: nn.Module, pool: Pool, pixel_values: PixelValues, recipe: Recipe, description: str
) -> None:
    """Train all of a network: AdamW, one cycle of the learning rate."""
    device = next(model.parameters()).device
    n_batches = len(pool.labels) // recipe.batch_size
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.epochs * n_batches
    )
    model.train()
    with progress(description, "batches", recipe.epochs * n_batches) as advance:
        for _ in range(recipe.epochs):
            order = torch.randperm(len(pool.labels))
            for batch in order[: n_batches * recipe.batch_size].split(recipe.batch_size):
                inputs = pixel_values(pool.images[batch].to(device))
                logits = model(pixel_values=inputs).logits
                optimizer.zero_grad()
                F.cross_entropy(logits, pool.labels[batch].to(device)).backward()
                optimizer.step()
                schedule.step()
                advance(1)
    model.eval()


@torch.no_grad()
def _accuracy(model: nn.Module, pool: Pool, pixel_values: PixelValues) -> float:
    device = next(model.parameters()).device
    right = sum(
        (model(pixel_values=pixel_values(images.to(device))).logits.argmax(1).cpu() == labels).sum()
        for images, labels in zip(pool.images.split(256), pool.labels.split(256), strict=True)
    )
    return right.item() / len(pool.labels)


def _save_folder(
    folder: Path, model: ViTForImageClassification, processor: object, record: dict
) -> None:
    """Save a backbone in transformers' format, file by file, whole or not at all."""
    with tempfile.TemporaryDirectory() as temporary, quiet_transformers():
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        save(Path(temporary) / RECORD, record)
        # A folder with its two settings files has all of it, and none of an earlier backbone.
        try:
            for file in folder.glob("*.json"):
                file.unlink()
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror}") from error
        for file in sorted(Path(temporary).iterdir(), key=lambda f: f.suffix == ".json"):
            write_atomically(folder / file.name, lambda to, file=file: shutil.copyfile(file, to))
    if not is_there(folder):
        raise UserError(f"{folder}: this release of transformers saves other files than expected")
