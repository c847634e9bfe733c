"""One split's samples, as a model takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from src.data.noise import check_flippable, with_flips
from src.errors import UserError
from src.experiments import Experiment, Paths, Task
from src.experiments.experiment import ALL
from src.storage.files import digest, load


class Samples:
    """Inputs and labels of one split.

    Args:
        images: Inputs (N, ...), or what `transform` makes inputs of.
        labels: Class (or target) of each sample, (N,).
        indices: Index of each sample in the full split of its source, int64 (N,).
        transform: Maps a batch of images to a batch of inputs each time it is used; None: the
            images are the inputs.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.images = images
        self.labels = labels
        self.indices = indices
        self.transform = transform

    def __len__(self) -> int:
        """Return the number of samples N."""
        return len(self.labels)

    def __getitem__(self, positions: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Return inputs and labels at the given positions, (B,)."""
        images, labels = self.images[positions], self.labels[positions]
        return images if self.transform is None else self.transform(images), labels

    def at(self, positions: Tensor | slice) -> Samples:
        """Return the samples at the given positions, (B,)."""
        return Samples(
            self.images[positions], self.labels[positions], self.indices[positions], self.transform
        )

    def followed_by(self, others: Samples) -> Samples:
        """Return these samples and, behind them, others of the same kind."""
        images, labels, indices = (
            torch.cat([getattr(side, name) for side in (self, others)])
            for name in ("images", "labels", "indices")
        )
        return Samples(images, labels, indices, self.transform)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all samples in stored order, at most `batch_size` at once."""
        for start in range(0, len(self), batch_size):
            yield self[start : start + batch_size]

    def positions(self, indices: Tensor) -> Tensor:
        """Return the positions (B,) of the samples that have the given indices (B,), int64.

        Raises:
            KeyError: There is no such sample; the argument is its index.
        """
        position = {index: i for i, index in enumerate(self.indices.tolist())}
        return torch.tensor([position[index] for index in indices.tolist()], dtype=torch.int64)

    def digest(self) -> str:
        """Return the SHA-256 of images and labels, in their order; indices are only their names."""
        return digest([self.images, self.labels])

    @property
    def device(self) -> torch.device:
        """Device of the samples."""
        return self.labels.device

    def to(self, device: torch.device) -> Samples:
        """Return the same samples on another device."""
        return Samples(self.images.to(device), self.labels.to(device), self.indices, self.transform)


def network_inputs(values: Tensor, task: Task) -> Tensor:
    """Return a task's images or other inputs as networks take them, same shape.

    Images, uint8 (N, C, H, W), become float32 in [0, 1], or have mean .5 and standard deviation .5
    subtracted and divided out where the task is normalised. The memory layout of what has four
    dimensions is channels last, also where one channel leaves the choice open: convolutions on a
    CPU are several times faster that way. Other inputs stay as they are.
    """
    if values.dtype == torch.uint8:
        values = values.float() / 255
        if task.normalised:
            values = (values - 0.5) / 0.5
    if values.ndim != 4:
        return values
    return torch.empty_like(values, memory_format=torch.channels_last).copy_(values)


def load_tensors(paths: Paths, task: Task, split: str) -> dict:
    """Return the tensors of a split that `run_subset_generation.py` wrote.

    Raises:
        UserError: The file is missing or damaged, or does not hold what it should.
    """
    make = paths.command("run_subset_generation.py", "--task", task.name)
    path = paths.tensors(task.name, split)
    told = () if task.is_described else ("n_classes", "classes", "class_names")
    told += ("scored",) if split == ALL else ()
    tensors = load(
        path,
        make,
        identity={"task": task.name, "split": split},
        holds=("labels", "indices", *told),
    )
    key = inputs_key(tensors)
    n = len(tensors["labels"]) if isinstance(tensors["labels"], Tensor) else 0
    if (
        n == 0
        or not all(isinstance(tensors.get(k), Tensor) for k in (key, "labels", "indices"))
        or not all(len(tensors[k]) == n for k in (key, "indices"))
        or (key == "images") != (tensors[key].dtype == torch.uint8)
        or (task.input_shape or tensors[key].shape[1:]) != tensors[key].shape[1:]
        or (tensors["indices"].dtype, tensors["indices"].shape) != (torch.int64, (n,))
        or len(tensors["indices"].unique()) != n
        or not _are_targets(tensors["labels"], task)
        or not _are_some(tensors.get("scored", tensors["indices"]), tensors["indices"])
    ):
        raise UserError(
            f"{path} does not hold {key}, labels and indices of {task.name}; "
            f"make it again with: {make} --overwrite"
        )
    return tensors


def _are_targets(labels: Tensor, task: Task) -> bool:
    if labels.dtype == torch.float32:
        return task.classes is None and task.n_classes is None
    are_labels = not task.has_values and labels.dtype == torch.int64 and labels.ndim == 1
    return are_labels and (task.classes is None or set(labels.tolist()) <= set(task.classes))


def _are_some(scored: object, indices: Tensor) -> bool:
    """Say whether what is to be scored are different ones of the indices."""
    return (
        isinstance(scored, Tensor)
        and scored.dtype == torch.int64
        and scored.ndim == 1
        and 0 < len(scored) == len(scored.unique())
        and torch.isin(scored, indices).all().item()
    )


def inputs_key(tensors: dict) -> str:
    """Return what a split's file calls its inputs."""
    return "images" if "images" in tensors else "inputs"


def described(experiment: Experiment, paths: Paths) -> Experiment:
    """Return an experiment whose task says what its data are like, where it does not so itself.

    Raises:
        UserError: See `load_tensors`.
    """
    task = experiment.task
    if task.is_described:
        return experiment
    tensors = load_tensors(paths, task, experiment.splits["train"])
    said = {"input_shape": tuple(tensors[inputs_key(tensors)].shape[1:])}
    if tensors["classes"] is None:
        said["target_shape"] = tuple(tensors["labels"].shape[1:])
    else:
        said |= {key: tuple(tensors[key]) for key in ("classes", "class_names")}
        said["n_classes"] = tensors["n_classes"]
    return replace(experiment, task=replace(task, **said))


def experiment_tensors(paths: Paths, experiment: Experiment) -> dict[str, dict]:
    """Return the tensors of an experiment, whose task is described, of "train" and of "test".

    The labels of `_noisy` training samples are those that are trained on.

    Raises:
        UserError: See `load_tensors`, or labels cannot be flipped.
    """
    splits = {
        split: load_tensors(paths, experiment.task, name)
        for split, name in experiment.splits.items()
    }
    if experiment.label_noise:
        check_flippable(experiment)
        train = splits["train"]
        train["labels"] = with_flips(train["labels"], experiment.task.classes)
    return splits


def to_samples(
    tensors: dict, experiment: Experiment, transform: Callable[[Tensor], Tensor] | None = None
) -> Samples:
    """Return the samples that tensors are to an experiment's model.

    Args:
        tensors: See `load_tensors`.
        experiment: The experiment.
        transform: Makes a ViT's inputs of images, uint8, whenever they are used. The inputs of
            other models are made once, but of all images of a source: as bytes they take a quarter
            of the memory, and batches are made of them.

    Raises:
        UserError: A ViT is to take what are no images of one or three channels.
    """
    values = tensors[inputs_key(tensors)]
    if not experiment.has_backbone:
        if experiment.n_per_class is None and "images" in tensors:
            transform = partial(network_inputs, task=experiment.task)
        else:
            values = network_inputs(values, experiment.task)
    elif "images" not in tensors or values.shape[1] not in (1, 3):
        raise UserError(
            f"{experiment.task.name} has inputs of {tuple(values.shape[1:])}; "
            f"{experiment.model.name} takes 8-bit images of one or three channels"
        )
    return Samples(values, tensors["labels"], tensors["indices"], transform)


def load_samples(
    paths: Paths, experiment: Experiment, transform: Callable[[Tensor], Tensor] | None = None
) -> tuple[Samples, Samples, Tensor | None]:
    """Return the train and the test samples of an experiment, whose task is described.

    Third are the positions of the training samples that may be scored, where these are not all.

    Args:
        paths: Every path below the root.
        experiment: The experiment.
        transform: See `to_samples`.
    """
    splits = experiment_tensors(paths, experiment)
    train, test = (to_samples(own, experiment, transform) for own in splits.values())
    scored = splits["train"].get("scored")
    return train, test, None if scored is None else train.positions(scored)
