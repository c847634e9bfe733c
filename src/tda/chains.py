"""What is computed of Markov chains: a covariance as they go, and how far they can be trusted."""

from __future__ import annotations

import torch
from torch import Tensor

FEWEST_DRAWS = 4  # of a chain whose halves have a variance


class Covariance:
    """The covariance of two vectors, of draws that are seen once (Chan, Golub and LeVeque 1983).

    Attributes:
        n: Number of draws so far.
    """

    def __init__(self) -> None:
        self.n = 0
        self._means: tuple[Tensor, Tensor] | None = None
        self._products = torch.zeros(())

    def add(self, a: Tensor, b: Tensor) -> None:
        """Take in M more draws, a of shape (M, n_a) and b of shape (M, n_b), float64."""
        means, n = (a.mean(0), b.mean(0)), len(a)
        self._products = self._products + (a - means[0]).T @ (b - means[1])
        if self._means is None:
            self._means = means
        apart = [new - old for new, old in zip(means, self._means, strict=True)]
        self._products += self.n * n / (self.n + n) * apart[0].outer(apart[1])
        self.n += n
        self._means = tuple(
            old + n / self.n * gap for old, gap in zip(self._means, apart, strict=True)
        )

    @property
    def value(self) -> Tensor:
        """The covariance (n_a, n_b), which divides by n − 1."""
        return self._products / (self.n - 1)


def split_r_hat(trace: Tensor) -> Tensor:
    """Return how far chains have not mixed: near 1 they have (Gelman et al. 2013, section 11.4).

    The root of the variance of all draws over that within half chains. Not a number: of chains of
    fewer than FEWEST_DRAWS draws.

    Args:
        trace: N numbers along chains, (n_chains, n_draws, N), float64.

    Returns:
        Of each number, (N,).
    """
    if trace.shape[1] < FEWEST_DRAWS:
        return trace.new_full(trace.shape[2:], torch.nan)
    within, overall = _variances(_halves(trace))
    return (overall / within).sqrt()


def effective_sample_size(trace: Tensor) -> Tensor:
    """Return how many independent draws the mean along chains is worth (ibid., section 11.5).

    Autocorrelations are summed until those of two successive lags are below 0 (Geyer 1992), and
    draws that repel each other are worth no more than independent ones. Not a number: of chains of
    fewer than FEWEST_DRAWS draws.

    Args:
        trace: N numbers along chains, (n_chains, n_draws, N), float64.

    Returns:
        Of each number, (N,).
    """
    if trace.shape[1] < FEWEST_DRAWS:
        return trace.new_full(trace.shape[2:], torch.nan)
    halves = _halves(trace)
    n_halves, n, _ = halves.shape
    within, overall = _variances(halves)
    centred = halves - halves.mean(1, keepdim=True)

    def correlation(lag: int) -> Tensor:
        covariance = (centred[:, : n - lag] * centred[:, lag:]).sum(1).mean(0) / n
        return 1 - (within - covariance) / overall

    total, goes_on = torch.zeros_like(within), torch.ones_like(within, dtype=torch.bool)
    for lag in range(1, n - 1, 2):
        pair = correlation(lag) + correlation(lag + 1)
        goes_on = goes_on & (pair > 0)
        total = total + pair.where(goes_on, 0)
    return n_halves * n / (1 + 2 * total)


def _halves(trace: Tensor) -> Tensor:
    n = trace.shape[1] // 2
    return torch.cat([trace[:, :n], trace[:, -n:]])


def _variances(halves: Tensor) -> tuple[Tensor, Tensor]:
    """Return the variance within chains (N,), and the estimate of that of the distribution."""
    n = halves.shape[1]
    within = halves.var(1).mean(0)
    return within, (n - 1) / n * within + halves.mean(1).var(0)
