"""Figure of leave-one-out's two distributions of losses: with a training sample, and without it."""

from __future__ import annotations

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from src.analysis.distributions import Distributions
from src.plots.style import COLOURS, legend_above, scale_ticks, small_multiples

_LABELS = {
    "mu": "μ, + helps",
    "variance_change": "variance,\nwithout − with",
    "wasserstein2": "2-Wasserstein\ndistance",
}


def distributions_figure(distributions: Distributions) -> Figure:
    """Draw the p-values of both tests, and μ, change of variance and distance over pairs.

    In grey what the same pairs show after their losses were dealt out at random.
    """
    figure, axes, _ = small_multiples(1 + len(_LABELS), 2.3)
    first, *others = axes[0]
    for label, p, line in (
        ("paired", distributions.paired, "-"),
        ("unpaired", distributions.unpaired, "--"),
    ):
        at = np.sort(p, axis=None)
        share = np.arange(1, at.size + 1) / at.size
        first.plot(
            np.r_[0, at], 100 * np.r_[0, share], line, color=COLOURS["loo"], lw=1.2, label=label
        )
    first.plot([0, 1], [0, 100], color="0.6", linewidth=0.8, label="noise, paired")
    first.set(xlabel="p-value", ylabel="% of pairs at or below", xlim=(0, 1), ylim=(0, 100))
    first.set(xticks=[0, 0.5, 1], xticklabels=["0", "0.5", "1"])
    for axis, (name, label) in zip(others, _LABELS.items(), strict=True):
        own, same = distributions.found[name], distributions.same[name]
        finite = np.abs(own[np.isfinite(own)])
        limit = (np.quantile(finite, 0.95) if finite.size else 0.0) or 1.0
        bins = np.linspace(0 if name == "wasserstein2" else -limit, limit, 41)
        for values, look in (
            (same, {"color": "0.8", "histtype": "stepfilled", "label": "dealt out at random"}),
            (own, {"color": COLOURS["loo"], "histtype": "step", "linewidth": 1.2}),
        ):
            weights = np.full(values.size, 100 / values.size)
            axis.hist(values.ravel(), bins=bins, weights=weights, **look)
        axis.locator_params(axis="x", nbins=3)
        axis.set_xlabel(label + scale_ticks(axis.xaxis, limit))
        axis.set_ylabel("% of pairs" if name == "mu" else "")
    first.fill_between([], [], [], color="0.8", label="dealt out at random")
    legend_above(figure, first)
    sns.despine(figure)
    return figure
