"""One split's samples, as a model takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from src.errors import UserError
from src.experiments import Experiment, Paths, Task
from src.storage import load


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

    @property
    def device(self) -> torch.device:
        """Device of the samples."""
        return self.labels.device

    def to(self, device: torch.device) -> Samples:
        """Return the same samples on another device."""
        return Samples(self.images.to(device), self.labels.to(device), self.indices, self.transform)


def network_inputs(images: Tensor, task: Task) -> Tensor:
    """Return a task's images, uint8 (N, C, H, W), as the CNNs take them: float32, same shape.

    The values lie in [0, 1], or have mean .5 and standard deviation .5 subtracted and divided out
    where the task is normalised. The memory layout is channels last, also where the one channel
    leaves the choice open: convolutions on a CPU are several times faster that way.
    """
    inputs = images.float() / 255
    if task.normalised:
        inputs = (inputs - 0.5) / 0.5
    return torch.empty_like(inputs, memory_format=torch.channels_last).copy_(inputs)


def load_tensors(paths: Paths, task: Task, split: str) -> dict:
    """Return the tensors of a split that `run_subset_generation.py` wrote.

    Raises:
        UserError: The file is missing or damaged, or does not hold what it should.
    """
    make = f"python run_subset_generation.py --task {task.name}"
    path = paths.tensors(task.name, split)
    tensors = load(path, make)
    nothing = torch.empty(0)
    images, labels, indices = (tensors.get(k, nothing) for k in ("images", "labels", "indices"))
    n = len(labels)
    if (
        n == 0
        or images.shape != (n, *task.input_shape)
        or images.dtype != torch.uint8
        or indices.shape != (n,)
    ):
        raise UserError(f"{path} does not hold the images of {task.name}; make it with: {make}")
    return tensors


def load_samples(
    paths: Paths, experiment: Experiment, transform: Callable[[Tensor], Tensor] | None = None
) -> tuple[Samples, Samples]:
    """Return the train and the test samples of an experiment.

    Args:
        paths: Every path below the root.
        experiment: The experiment.
        transform: Makes inputs of uint8 images whenever they are used; None: they are made once, as
            the CNNs take them.
    """
    task = experiment.task
    train, test = (
        Samples(
            network_inputs(t["images"], task) if transform is None else t["images"],
            t["labels"],
            t["indices"],
            transform,
        )
        for t in (
            load_tensors(paths, task, f"train_{experiment.n_per_class}pc"),
            load_tensors(paths, task, "test"),
        )
    )
    return train, test
