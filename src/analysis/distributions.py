"""Leave-one-out's two distributions of a test sample's loss: trained with z_j, and without it.

Of T seeds there are T losses L(z; θ) and T losses L(z; θ_∖j), each the mean over the last k
checkpoints. Paired, seed by seed, they say what z_j did in these trainings; unpaired, as two
samples, what another training without z_j would give, where all that differs between seeds is
noise. Without is minus with, so that positive means that z_j helps:

- paired: two-sided t-test of the mean difference, the test of a leave-one-out score;
- unpaired: Welch's t-test (1947), which allows for unequal variances. It takes the samples for
  independent; they share their seeds, so where these make both losses large or small together it
  finds too little rather than too much;
- mu: f-INE's influence (Panda et al. 2025), μ = Φ⁻¹(1 − α) − Φ⁻¹(β) with α and β the errors of a
  test of 'trained with z_j' against 'trained without'. Of two normals of one standard deviation σ
  it is (m_without − m_with) / σ for every α. Of unequal ones it depends on α; what is computed is
  that of the test 'the loss is above a threshold' at the threshold of equal errors, α = β:
  μ = (m_without − m_with) / ((s_without + s_with) / 2), with means and standard deviations
  (T − 1) of the samples;
- variance_change: s²_without − s²_with (d-TDA, Mlodozeniec et al. 2025);
- wasserstein2: the 2-Wasserstein distance (d-TDA) of the empirical distributions.

Distances of two samples of one distribution are not 0 either. Beside mean, μ, change of variance
and distance stands therefore what they are after a pair's 2T losses were dealt out at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.special import stdtr

from src.analysis.agreement import dealt_out, wasserstein
from src.analysis.scores import ExperimentScores
from src.analysis.significance import false_discoveries_controlled
from src.analysis.stats import draw_samples, kappa, moments, pvalues

QUANTITIES = ("mean", "mu", "variance_change", "wasserstein2")


def _are_constant(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return of which pairs (...) neither sample (T, ...) has any spread."""
    return (a == a[0]).all(axis=0) & (b == b[0]).all(axis=0)


def welch_pvalues(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the two-sided p-value of Welch's test of equal means for every pair.

    Args:
        a: Samples (T, ...), T at least 2.
        b: Samples (T, ...) of the other.

    Returns:
        P-values (...). Where neither sample has any spread: 1 if their means are equal, else 0.
    """
    n_draws = len(a)
    (mean_a, std_a), (mean_b, std_b) = moments(a), moments(b)
    errors = std_a**2 / n_draws, std_b**2 / n_draws  # squared, of each mean
    both = errors[0] + errors[1]
    constant = _are_constant(a, b)
    safe = [np.where(constant, 1.0, error) for error in (*errors, both)]
    freedom = safe[2] ** 2 * (n_draws - 1) / (safe[0] ** 2 + safe[1] ** 2)
    p = 2 * stdtr(freedom, -np.abs(mean_a - mean_b) / np.sqrt(safe[2]))
    return np.where(constant, np.where(a[0] == b[0], 1.0, 0.0), p)


def gaussian_influence(without: np.ndarray, trained_with: np.ndarray) -> np.ndarray:
    """Return μ at equal errors of every pair, see the module's docstring.

    Args:
        without: Samples (T, ...), T at least 2.
        trained_with: Samples (T, ...) of the other.

    Returns:
        μ (...): infinite where neither sample has any spread and the means differ; 0 if they do
        not.
    """
    (mean, std), (mean_with, std_with) = moments(without), moments(trained_with)
    # The standard deviation of equal samples is zero, or of the size of rounding.
    scale = np.where(_are_constant(without, trained_with), 0.0, (std + std_with) / 2)
    difference = mean - mean_with
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(difference == 0, 0.0, difference / scale)


def quantities(without: np.ndarray, trained_with: np.ndarray) -> dict[str, np.ndarray]:
    """Return each of QUANTITIES of every pair, (...), of samples (T, ...)."""
    (mean, std), (mean_with, std_with) = moments(without), moments(trained_with)
    return {
        "mean": mean - mean_with,
        "mu": gaussian_influence(without, trained_with),
        "variance_change": std**2 - std_with**2,
        "wasserstein2": wasserstein(without, trained_with, order=2),
    }


@dataclass(frozen=True)
class Distributions:
    """What sets the losses of trainings with and without z_j apart, pair by pair.

    Attributes:
        paired: P-value of the paired test, (n_scored, n_test).
        unpaired: P-value of the unpaired one.
        found: Each of QUANTITIES, by name.
        same: The same after dealing out at random.
        continued: Whether θ_∖j is the trained model, trained on: then it differs from θ by more
            epochs, too.
    """

    paired: np.ndarray
    unpaired: np.ndarray
    found: dict[str, np.ndarray]
    same: dict[str, np.ndarray]
    continued: bool

    @classmethod
    def of(cls, effect: np.ndarray, base: np.ndarray, *, continued: bool = False) -> Distributions:
        """Compare the losses.

        Args:
            effect: L(z; θ_∖j) − L(z; θ), samples (T, n_scored, n_test).
            base: L(z; θ), samples (T, n_test).
            continued: As the attribute.
        """
        trained_with = np.broadcast_to(base[:, None], effect.shape)
        without = trained_with + effect
        return cls(
            pvalues(effect),
            welch_pvalues(without, trained_with),
            quantities(without, trained_with),
            quantities(*dealt_out(without, trained_with)),
            continued,
        )

    @cached_property
    def pair_columns(self) -> dict[str, np.ndarray]:
        """What a table of pairs takes beside mean and paired test, (n_scored, n_test) by name."""
        named = {name: self.found[name] for name in QUANTITIES if name != "mean"}
        return {"p_unpaired": self.unpaired, **named}


def loo_distributions(scores: ExperimentScores) -> Distributions | None:
    """Return leave-one-out's two distributions over all checkpoints; None without it."""
    if "loo" not in scores.scores:
        return None
    k = scores.n_checkpoints
    base = np.stack([scores.bases[seed] for seed in scores.seeds["loo"]])
    return Distributions.of(
        draw_samples(scores.scores["loo"], k),
        draw_samples(base, k),
        continued=scores.options["loo"].get("protocol") == "continue",
    )


def both_tests(distributions: Distributions, alpha: float) -> pd.DataFrame:
    """Return the paired and the unpaired test side by side.

    Args:
        distributions: Of all pairs.
        alpha: Significance level, and false discovery rate.

    Returns:
        A row for each test: mean p-value, fraction of pairs below alpha, what Benjamini and
        Hochberg's procedure keeps of them, and `kappa`, how far both give the same answer at alpha
        beyond chance.
    """
    both = {"paired": distributions.paired, "unpaired": distributions.unpaired}
    agree = kappa(*(p < alpha for p in both.values()))
    rows = {
        test: {
            "mean_pvalue": p.mean(),
            "significant": (p < alpha).mean(),
            "benjamini_hochberg": false_discoveries_controlled(p, alpha).mean(),
            "kappa": agree,
        }
        for test, p in both.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("test")


def quantities_table(distributions: Distributions) -> pd.DataFrame:
    """Return how large each of QUANTITIES is over pairs, and what dealing out leaves of it.

    Returns:
        A row for each: median and 95 % quantile of its size, the same after dealing out (`_same`),
        and the share of pairs where it is above 0, which a distance always is.
    """
    rows = {}
    for name in QUANTITIES:
        row: dict[str, float] = {}
        for end, values in (("", distributions.found), ("_same", distributions.same)):
            size = np.abs(values[name])
            row[f"median_size{end}"] = np.median(size)
            # No mean of two values, one of which may be infinite.
            row[f"size_95%{end}"] = np.quantile(size, 0.95, method="higher")
        row["above_0"] = (distributions.found[name] > 0).mean()
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("quantity")
