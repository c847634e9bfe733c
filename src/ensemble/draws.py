"""Draws of the training randomness: what a seed drives, and in which order it is consumed.

The plain idiom is `torch.manual_seed(seed)`, build the model, iterate a `DataLoader(...,
shuffle=True)`. Both the initialisation and the batch order then come from torch's global
generator, one after the other, and everything here keeps to that order, so that a draw equals what
the idiom gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader

from src.ensemble.members import State, state_of
from src.errors import UserError
from src.experiments import N_SEEDS, REPOSITORY, Experiment

SEEDS_FILE = REPOSITORY / "random_seeds.pt"


def load_seeds() -> list[int]:
    """Return the ten seeds of `random_seeds.pt`, in the order that `--seed_id` indexes.

    Raises:
        UserError: The file is missing, cannot be read, is damaged or holds something else.
    """
    again = f"it is part of the repository: git checkout {SEEDS_FILE.name}"
    try:
        seeds = torch.load(SEEDS_FILE, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise UserError(f"{SEEDS_FILE} does not exist; {again}") from None
    except OSError as error:
        raise UserError(f"cannot read {SEEDS_FILE}: {error.strerror}; {again}") from error
    except Exception as error:  # damaged bytes make the unpickler raise errors of many kinds
        raise UserError(f"{SEEDS_FILE} is damaged; {again}") from error
    if (
        not isinstance(seeds, torch.Tensor)
        or seeds.dtype != torch.int64
        or seeds.shape != (N_SEEDS,)
        or len(seeds.unique()) != N_SEEDS
    ):
        raise UserError(f"{SEEDS_FILE} must hold {N_SEEDS} different int64 seeds; {again}")
    return seeds.tolist()


@dataclass(frozen=True)
class Draw:
    """The seeds of one trained model: equal unless the experiment fixes one of the two."""

    init_seed: int
    batch_seed: int

    @classmethod
    def of(cls, experiment: Experiment, seed: int) -> Draw:
        """Return the draw that `seed` gives; what it does not drive comes from the first seed."""
        first = load_seeds()[0]
        return cls(
            init_seed=first if experiment.randomness == "batch" else seed,
            batch_seed=first if experiment.randomness == "init" else seed,
        )

    def start(self, build: Callable[[], torch.nn.Module]) -> State:
        """Seed the global generator and return the initial state.

        Afterwards the generator stands where the batch order begins, just as it does in the plain
        idiom: behind `manual_seed(batch_seed)` and the construction of one model. Call it again
        before every training that is to see the same batches.
        """
        torch.manual_seed(self.init_seed)
        state = state_of(build())
        if self.batch_seed != self.init_seed:
            torch.manual_seed(self.batch_seed)
            build()
        return state


def shuffled_epochs(n_samples: int, batch_size: int, n_epochs: int) -> Iterator[Iterator]:
    """Yield, for each epoch, an iterator over batches of sample positions (int64, (B,)).

    A `DataLoader` makes them, so they are the batches of the plain idiom by construction. It draws
    from the global generator when an epoch begins, not before: a model with dropout draws from the
    same generator in between.
    """
    loader = DataLoader(range(n_samples), batch_size=batch_size, shuffle=True)
    for _ in range(n_epochs):
        yield iter(loader)
