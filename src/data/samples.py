"""One split's samples, as a model takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from src.errors import UserError
from src.experiments import Experiment, Paths, Task
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
    identity = {"task": task.name, "split": split}
    tensors = load(path, make, identity=identity, holds=("images", "labels", "indices"))
    n = len(tensors["labels"]) if isinstance(tensors["labels"], Tensor) else 0
    expected = {
        "images": (torch.uint8, (n, *task.input_shape)),
        "labels": (torch.int64, (n,)),
        "indices": (torch.int64, (n,)),
    }
    if (
        n == 0
        or not all(isinstance(tensors[key], Tensor) for key in expected)
        or any((tensors[k].dtype, tensors[k].shape) != kind for k, kind in expected.items())
        or len(tensors["indices"].unique()) != n
        or not set(tensors["labels"].tolist()) <= set(task.classes)
    ):
        raise UserError(
            f"{path} does not hold images, labels and indices of {task.name}; "
            f"make it again with: {make} --overwrite"
        )
    return tensors


def to_samples(
    tensors: dict, experiment: Experiment, transform: Callable[[Tensor], Tensor] | None = None
) -> Samples:
    """Return the samples that tensors are to an experiment's model.

    Args:
        tensors: See `load_tensors`.
        experiment: The experiment.
        transform: Makes a ViT's inputs of images, uint8, whenever they are used; the inputs of a
            CNN are made once.
    """
    images = tensors["images"]
    if not experiment.has_backbone:
        images = network_inputs(images, experiment.task)
    return Samples(images, tensors["labels"], tensors["indices"], transform)


def load_samples(
    paths: Paths, experiment: Experiment, transform: Callable[[Tensor], Tensor] | None = None
) -> tuple[Samples, Samples]:
    """Return the train and the test samples of an experiment.

    Args:
        paths: Every path below the root.
        experiment: The experiment.
        transform: See `to_samples`.
    """
    train, test = (
        to_samples(load_tensors(paths, experiment.task, split), experiment, transform)
        for split in experiment.splits.values()
    )
    return train, test
