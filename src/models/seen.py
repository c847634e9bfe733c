"""What a backbone was pre-trained on, so that no task is given one that has seen its samples."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from src.errors import UserError
from src.storage.files import load

RECORD = "pretraining.pt"  # in the backbone's folder


def fingerprints(images: Tensor) -> Tensor:
    """Return a number of each image, int64 (N,), of images uint8 (N, C, H, W).

    It is of the pixels alone, so that it tells an image whatever the source, its indices and the
    task's choice of classes. Of 60,000 images two have the same by chance with probability 1e-10.
    """
    digests = [hashlib.blake2b(image.numpy().tobytes(), digest_size=8).digest() for image in images]
    return torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.int64)


def read_record(folder: Path, make: str) -> dict:
    """Return what a backbone's folder says of its pre-training.

    Args:
        folder: The folder.
        make: The command that pre-trains it, for the error message.

    Raises:
        UserError: It says nothing, or what it says is damaged.
    """
    if not (folder / RECORD).exists():
        raise UserError(
            f"{folder / RECORD} does not exist, so it is not known what {folder.name} has seen; "
            f"make both with: {make} --overwrite"
        )
    record = load(folder / RECORD, make)
    if not isinstance(record.get("seen"), Tensor):
        raise UserError(
            f"{folder / RECORD} does not say what was seen; make it with: {make} --overwrite"
        )
    return record


def check_unseen(record: dict, folder: Path, images: Tensor, subset: str, make: str) -> None:
    """Raise UserError where a backbone was pre-trained on images of a subset, uint8 (N, ...)."""
    n_seen = int(torch.isin(fingerprints(images), record["seen"]).sum())
    if n_seen:
        raise UserError(
            f"the backbone {folder} was pre-trained on {n_seen} of the {len(images)} images of "
            f"{subset}: pre-train another, and fine-tune on it, with: {make} --overwrite"
        )
