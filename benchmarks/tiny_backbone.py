"""What pre-training is worth: LoRA on the tiny backbone against the same network from scratch.

    python benchmarks/tiny_backbone.py vit_mnist3_10pc

Both see the same images at the same settings (optimiser, schedule, batches, epochs); from scratch
all weights are trained. The backbone must be there: run_vit_finetuning.py --backbone tiny makes it.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.ensemble.draws import Draw, load_seeds  # noqa: E402
from src.ensemble.evaluation import fit_of  # noqa: E402
from src.ensemble.members import PerSampleLoss  # noqa: E402
from src.ensemble.setup import Setup, train  # noqa: E402
from src.experiments import (  # noqa: E402
    REPOSITORY,
    TINY_BACKBONE,
    Paths,
    parse_experiment,
)
from src.models import build  # noqa: E402
from src.models.pretraining import RECIPES, tiny_vit  # noqa: E402


class Logits(nn.Module):
    """A classification model whose output is its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return logits (B, n_classes)."""
        return self.model(pixel_values=pixel_values).logits


def accuracies(setup: Setup, new_model: Callable[[], nn.Module]) -> Tensor:
    """Return the test accuracy of a model trained with each of the ten seeds, (10,)."""
    found = []
    for seed in load_seeds():
        loss = PerSampleLoss(new_model())
        *_, last = train(replace(setup.procedure, loss=loss), Draw(seed, seed).start(new_model))
        found.append(fit_of(loss, last.params, setup.test)["accuracy"])
    return torch.tensor(found)


def main() -> None:
    """Print mean and standard deviation over the ten seeds of both."""
    experiment = replace(parse_experiment(sys.argv[1]), backbone=TINY_BACKBONE)
    setup = Setup.load(experiment, Paths(REPOSITORY), torch.device("cpu"))
    recipe, size = RECIPES[experiment.task.source], experiment.task.input_shape[1]
    for name, new_model in {
        "LoRA": lambda: build(experiment, setup.backbone),
        "from scratch": lambda: Logits(tiny_vit(recipe, size, experiment.task.n_classes)),
    }.items():
        found = accuracies(setup, new_model)
        print(f"{experiment.name} {name}: {found.mean():.1%} (std {found.std():.1%}) on test")


if __name__ == "__main__":
    main()
