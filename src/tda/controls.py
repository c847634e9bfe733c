"""Controls: scores that are all data, and scores that are all chance.

    inputs: τ(z_j, z) = cosine of the two inputs        noise: τ(z_j, z) ~ N(0, 1), drawn anew

The first is the same in every training, so it is perfectly reliable and says nothing of the model;
the second is what a test of reliability has to call noise. Positive: alike, or by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.memory import in_chunks
from src.tda.estimator import Draws, Scores

_AT_ONCE = 1024  # inputs whose values are held as float64


@dataclass(frozen=True)
class InputSimilarity:
    """The control `inputs`.

    Attributes:
        chunk_size: Training samples at once; None: a thousand.
    """

    methods: ClassVar[tuple[str, ...]] = ("inputs",)
    retrains: ClassVar[bool] = False

    chunk_size: int | None = None

    def settings(self) -> dict:
        """Return every option that changes the numbers."""
        return {}

    def __call__(self, draws: Draws) -> dict[str, Scores]:
        """Return the scores of all pairs, the same at all checkpoints."""
        setup = draws.setup
        scores = input_cosines(setup.scored_samples, setup.test, self.chunk_size or _AT_ONCE)
        return {"inputs": Scores(scores.expand(len(draws.checkpoints), -1, -1))}


def input_cosines(train: Samples, test: Samples, chunk_size: int) -> Tensor:
    """Return the cosines (n_train, n_test) of inputs as the network takes them.

    That with an input that is all zeros is 0. Numbers of tokens count as values, which says little.

    Args:
        train: The training samples that are scored.
        test: The test samples.
        chunk_size: Training samples at once.
    """

    def directions(samples: Samples, chunk: range) -> Tensor:
        inputs, _ = samples[chunk.start : chunk.stop]
        return F.normalize(inputs.cpu().flatten(1).double(), dim=1)

    of_test = torch.cat([*in_chunks(range(len(test)), _AT_ONCE, lambda c: directions(test, c))])
    rows = in_chunks(range(len(train)), chunk_size, lambda c: directions(train, c) @ of_test.T)
    return torch.cat([*rows])


@dataclass(frozen=True)
class Noise:
    """The control `noise`.

    Attributes:
        chunk_size: Changes nothing.
    """

    methods: ClassVar[tuple[str, ...]] = ("noise",)
    retrains: ClassVar[bool] = False

    chunk_size: int | None = None

    def settings(self) -> dict:
        """Return every option that changes the numbers."""
        return {}

    def __call__(self, draws: Draws) -> dict[str, Scores]:
        """Return a standard normal for every pair and checkpoint, drawn from the seed."""
        shape = len(draws.checkpoints), len(draws.setup.scored), len(draws.setup.test)
        generator = torch.Generator().manual_seed(draws.seed)
        return {"noise": Scores(torch.randn(shape, generator=generator))}
