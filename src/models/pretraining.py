"""The tiny backbone: a small ViT, pre-trained here on images that a task does not use."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from src.data.pixel_values import PixelValues
from src.data.sources import load_split
from src.data.subsets import read_indices, split_names
from src.errors import UserError
from src.experiments import Paths, Task
from src.models.backbones import is_there, quiet_transformers
from src.storage import write_atomically

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
    """Images that a task does not use, uint8 (N, C, H, W), and their classes from 0 on, (N,)."""

    images: Tensor
    labels: Tensor


def unused(task: Task, paths: Paths, source: Path | None) -> tuple[Pool, Pool]:
    """Return what to pre-train on and what to hold out, none of it used by the task.

    Where the source has classes that are not the task's, it is the images of these classes, else
    the images outside of the committed subsets. What is held out comes from the source's test
    split, or is a fifth of the one pool that there is.

    Raises:
        UserError: The source cannot be reached, or an index file is missing or wrong.
    """
    pools = []
    for split in ("train", "test"):
        full = load_split(task, split, source)
        free = ~np.isin(full.labels, task.classes)
        if not free.any():
            free[:] = True
            for name in split_names(task):
                if task.one_pool or (name == "test") == (split == "test"):
                    indices = read_indices(paths.indices(task.name, name), task, full.labels)
                    free[indices] = False
        chosen = np.flatnonzero(free)
        if task.one_pool:
            chosen = np.random.default_rng(SEED).permutation(chosen)
            n_held_out = len(chosen) // 5
            chosen = chosen[n_held_out:] if split == "train" else chosen[:n_held_out]
        _, classes = np.unique(full.labels[chosen], return_inverse=True)
        pools.append(Pool(full.images(chosen.tolist()), torch.from_numpy(classes)))
    return pools[0], pools[1]


def pretrain_tiny(task: Task, paths: Paths, source: Path | None, device: torch.device) -> None:
    """Pre-train the tiny backbone of a task's source and save it, unless it is there.

    Prints the accuracy on held-out images.

    Raises:
        UserError: The source cannot be reached, or the folder cannot be written.
    """
    folder = paths.tiny_backbone(task.source)
    if is_there(folder):
        return
    train, held_out = unused(task, paths, source)
    recipe = RECIPES[task.source]
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
    _save_folder(folder, model.cpu(), processor)
    print(
        f"{folder}: pre-trained on {len(train.labels)} images that {task.name} does not use, "
        f"accuracy {accuracy:.1%} on {len(held_out.labels)} held-out ones",
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
    with tqdm(
        total=recipe.epochs * n_batches, desc=description, unit="batch", leave=False, disable=None
    ) as bar:
        for _ in range(recipe.epochs):
            order = torch.randperm(len(pool.labels))
            for batch in order[: n_batches * recipe.batch_size].split(recipe.batch_size):
                inputs = pixel_values(pool.images[batch].to(device))
                logits = model(pixel_values=inputs).logits
                optimizer.zero_grad()
                F.cross_entropy(logits, pool.labels[batch].to(device)).backward()
                optimizer.step()
                schedule.step()
                bar.update()
    model.eval()


@torch.no_grad()
def _accuracy(model: nn.Module, pool: Pool, pixel_values: PixelValues) -> float:
    device = next(model.parameters()).device
    right = sum(
        (model(pixel_values=pixel_values(images.to(device))).logits.argmax(1).cpu() == labels).sum()
        for images, labels in zip(pool.images.split(256), pool.labels.split(256), strict=True)
    )
    return right.item() / len(pool.labels)


def _save_folder(folder: Path, model: ViTForImageClassification, processor: object) -> None:
    """Save a backbone in transformers' format, file by file, whole or not at all."""
    with tempfile.TemporaryDirectory() as temporary, quiet_transformers():
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        # The weights come first: a folder with its two settings files has all of it.
        for file in sorted(Path(temporary).iterdir(), key=lambda f: f.suffix == ".json"):
            write_atomically(folder / file.name, lambda to, file=file: shutil.copyfile(file, to))
    if not is_there(folder):
        raise UserError(f"{folder}: this release of transformers saves other files than expected")
