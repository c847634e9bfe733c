"""The tables of RESULTS.md: rows of text from the numbers that were measured of experiments."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pandas as pd

from src.errors import UserError
from src.experiments import PAPER_METHODS
from src.paper.accuracy_tables import (
    accuracy_beside_reliability,
    distribution_tests,
    draws_buy,
    mislabelled,
    top_samples,
)
from src.paper.estimator_tables import clusters, estimators, influence, with_loo
from src.paper.fragility_tables import image_fits, iris_fits
from src.paper.measured import Measured
from src.paper.table_cells import by_method, halves_of, interval, percent
from src.plots.style import METHOD_LABELS
from src.reports.reading import words_of_draws


def _common_draws(measured: list[Measured]) -> int:
    """Return the largest number of first draws whose p-values all experiments have.

    Raises:
        UserError: There is none.
    """
    common = set.intersection(
        *(set(one.pvalues.index.get_level_values("draws")) for one in measured)
    )
    if not common:
        names = ", ".join(f"{one.name} ({one.n_draws})" for one in measured)
        raise UserError(f"no number of first draws was kept of all of {names}")
    return max(common)


def _what(n_draws: int) -> dict[str, Callable[[Measured], object]]:
    def rows(one: Measured) -> str:
        scored, n_train = one.about["train_samples_scored"], one.about["train_samples"]
        return n_train if scored == n_train else f"{scored} of {n_train}"

    return {"T": lambda _: n_draws, "training samples scored": rows}


def mean_pvalues(measured: list[Measured]) -> pd.DataFrame:
    """Return mean p-values with their intervals, at the draws that all experiments have."""
    n = _common_draws(measured)

    def cell(one: Measured, method: str) -> str:
        row = one.pvalues.loc[(n, method)]
        low, high = row["mean_pvalue_ttest_low"], row["mean_pvalue_ttest_high"]
        return f"{row['mean_pvalue_ttest']:.3f} {interval(low, high)}"

    return by_method(measured, cell, _what(n))


def published_pvalues(measured: list[Measured]) -> pd.DataFrame:
    """Return mean p-values by the published formula."""
    n = _common_draws(measured)

    return by_method(
        measured,
        lambda one, m: f"{one.pvalues.loc[(n, m), 'mean_pvalue_snr']:.3f}",
        _what(n),
    )


def significant(measured: list[Measured]) -> pd.DataFrame:
    """Return the share of pairs below alpha, and of discoveries."""
    n = _common_draws(measured)

    def cell(one: Measured, method: str) -> str:
        row = one.pvalues.loc[(n, method)]
        return f"{percent(row['below_alpha_ttest'])} → {percent(row['discoveries_ttest'])} %"

    return by_method(measured, cell, _what(n))


def sign_flips(measured: list[Measured]) -> pd.DataFrame:
    """Return the share of pairs below alpha by Student's t and by the exact sign-flip test."""

    def cell(one: Measured, method: str) -> str:
        row = one.table("significance").set_index("method").loc[method]
        both = f"{percent(row['significant'])} → {percent(row['sign_flip'])} %"
        return f"{both} ({percent(row['agreement'])})"

    return by_method(measured, cell, {"T": lambda one: one.n_draws})


def steps(measured: list[Measured]) -> pd.DataFrame:
    """Return by how much the mean p-value changes from each experiment to the next."""
    n = _common_draws(measured)
    rows = []
    for less, more in pairwise(measured):
        before, after = less.estimates(n), more.estimates(n)
        cells = {}
        for m in PAPER_METHODS:
            change = after[m] - before[m]
            limits = interval(*change.interval(), "{:+.3f}".format, " to ")
            cells[METHOD_LABELS[m]] = f"{change.value:+.3f} {limits}".strip()
        rows.append({"from": f"`{less.name}`", "to": f"`{more.name}`", "T": n, **cells})
    return pd.DataFrame(rows)


def sources(measured: list[Measured]) -> pd.DataFrame:
    """Return the variance by source, and which of the two gives more."""
    rows = []
    for one in measured:
        for _, row in one.table("sources").iterrows():
            rows.append(
                {
                    "experiment": f"`{one.name}`",
                    "T": int(row["draws"]),
                    "method": METHOD_LABELS[row["method"]],
                    **{
                        f"{name} / {other}": f"{row[key]:.2f} "
                        + interval(row[f"{key}_low"], row[f"{key}_high"], "{:.2f}".format)
                        for name, other, key in (
                            ("initialisation", "both", "init_to_both"),
                            ("batch order", "both", "batch_to_both"),
                            ("initialisation", "batch order", "init_to_batch"),
                        )
                        if key in row
                    },
                }
            )
    return pd.DataFrame(rows)


def draws(measured: list[Measured]) -> pd.DataFrame:
    """Return the seeds for 80 % power, the median over pairs, and the ranks of two halves."""

    def cell(one: Measured, method: str) -> str:
        needed = one.table("draws_needed").set_index("method")
        return words_of_draws(needed.loc[method, "draws_for_50%"])

    return by_method(measured, cell, {"T": lambda one: one.n_draws}).assign(
        **{"two halves of LOO's seeds": [halves_of(one, "loo") for one in measured]}
    )


def variance(measured: list[Measured]) -> pd.DataFrame:
    """Return the share of the random variance that lies between seeds."""

    def cell(one: Measured, method: str) -> str:
        row = one.table("variance").set_index("method").loc[method]
        share, *limits = (row[f"share_between{end}"] for end in ("", "_low", "_high"))
        return f"{percent(share)} % {interval(*limits, percent)}"

    return by_method(measured, cell, {"T": lambda one: one.n_draws})


def checkpoints(measured: list[Measured]) -> pd.DataFrame:
    """Return the mean p-value of one checkpoint and of all, averaged."""

    def cell(one: Measured, method: str) -> str:
        values = one.table("checkpoints").query("method == @method")["mean_pvalue"]
        return f"{values.iloc[0]:.3f} → {values.iloc[-1]:.3f}"

    return by_method(measured, cell, {"T": lambda one: one.n_draws})


def accuracy(measured: list[Measured]) -> pd.DataFrame:
    """Return accuracies and losses after the last epoch, mean ± standard deviation over seeds."""
    rows = []
    for one in measured:
        fit = one.table("fit").set_index("seed")
        cells = {
            name.replace("_", " "): f"{fit[name].mean():.3f} ± {fit[name].std():.3f}"
            for name in fit
        }
        rows.append({"experiment": f"`{one.name}`", "T": len(fit), **cells})
    return pd.DataFrame(rows)


def floor(measured: list[Measured]) -> pd.DataFrame:
    """Return leave-one-out as it was scored and less its floor, at draws that all have."""
    n, rows = _common_draws(measured), []
    for one in measured:
        of = one.table("floor").query("draws == @n").set_index("of")
        left = of.loc["less_floor", "variance"] / of.loc["score", "variance"]
        for name, what in (("score", "as scored"), ("less_floor", "less the floor")):
            own = of.loc[name]
            rows.append(
                {
                    "experiment": f"`{one.name}`",
                    "T": n,
                    "LOO": what,
                    "mean p-value": f"{own['mean_pvalue']:.3f}",
                    "p < 0.05 → FDR 5 %": (
                        f"{percent(own['significant'])} → {percent(own['discoveries'])} %"
                    ),
                    "median size": f"{own['median_size']:.3g}",
                    "variance, % of as scored": percent(left if name == "less_floor" else 1.0),
                }
            )
    return pd.DataFrame(rows)


def few_against_many(measured: list[Measured]) -> pd.DataFrame:
    """Return what ten seeds say, on average over groups of ten, beside what all say."""
    rows = []
    for one in measured:
        table = one.table("few_against_many")
        for method in PAPER_METHODS:
            own = table[table["method"] == method]
            groups, whole = own[own["group"] != "all"], own[own["group"] == "all"].iloc[0]

            def both(
                name: str,
                form: Callable[[float], str],
                few: pd.DataFrame = groups,
                all_: pd.Series = whole,
            ) -> str:
                return f"{form(few[name].mean())} → {form(all_[name])}"

            rows.append(
                {
                    "method": METHOD_LABELS[method],
                    "T": f"{groups['draws'].iloc[0]} → {whole['draws']}",
                    "mean p-value": both("mean_pvalue", "{:.3f}".format),
                    "p < 0.05, %": both("significant", percent),
                    "FDR 5 %, %": both("discoveries", percent),
                    "seeds for 80 % power": both("draws_needed", "{:.0f}".format),
                    "ranks, few with the rest": f"{groups['rank_correlation'].mean():.2f}",
                    "sign kept, % of p < 0.05": percent(groups["sign_kept"].mean()),
                    "of FDR 5 %": percent(groups["sign_kept_discoveries"].mean()),
                    "of the others": percent(groups["sign_kept_rest"].mean()),
                    "p < 0.05 again, %": percent(groups["significant_again"].mean()),
                }
            )
    return pd.DataFrame(rows)


TABLES: dict[str, Callable[[list[Measured]], pd.DataFrame]] = {
    table.__name__: table
    for table in (
        mean_pvalues,
        published_pvalues,
        significant,
        sign_flips,
        steps,
        sources,
        clusters,
        draws,
        variance,
        checkpoints,
        accuracy,
        estimators,
        with_loo,
        influence,
        floor,
        few_against_many,
        accuracy_beside_reliability,
        draws_buy,
        top_samples,
        distribution_tests,
        mislabelled,
        iris_fits,
        image_fits,
    )
}
