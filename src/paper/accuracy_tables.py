"""The tables of RESULTS.md on accuracy, on top samples, and on distributions of losses."""

from __future__ import annotations

import pandas as pd

from src.paper.measured import Measured
from src.paper.table_cells import interval, percent
from src.plots.style import METHOD_LABELS

_DRAWS = (1, 2, 5, 10, 20, 50, 100)  # that are averaged, of a column each where there are as many


def accuracy_beside_reliability(measured: list[Measured]) -> pd.DataFrame:
    """Return reliability and linear datamodelling scores, a row for each experiment and method."""
    rows = []
    for one in measured:
        limits = one.table("accuracy").set_index(["statistic", "version", "method"])

        def cell(*key: str, limits: pd.DataFrame = limits) -> str:
            row = limits.loc[key]
            return (
                f"{row['value']:.2f} {interval(row['low'], row['high'], '{:.2f}'.format)}".strip()
            )

        summary = one.table("accuracy_by_method").set_index("method")
        for method, row in summary.iterrows():
            rows.append(
                {
                    "experiment": f"`{one.name}`",
                    "T": one.n_draws,
                    "subsets": f"{row['subsets']:.0f}",
                    "method": METHOD_LABELS[method],
                    "reliable, %": percent(row["reliability"]),
                    "one draw, its own losses": cell("lds", "draw_own", method),
                    "one draw, mean losses": cell("lds", "draw_mean", method),
                    "mean of all draws, mean losses": cell("lds", "mean_mean", method),
                    "one draw, other seeds": cell("lds", "draw_other", method),
                    "mean of half, other seeds": cell("lds", "mean_other", method),
                    "LOO of other seeds": cell("loo", "mean_other", method)
                    if "loo_of_other" in row
                    else "",
                }
            )
        ceiling = {
            "subsets": f"{row['subsets']:.0f}",
            "method": "*ceiling*",
            "mean of half, other seeds": cell("lds", "ceiling", "losses"),
        }
        rows.append({"experiment": f"`{one.name}`", "T": one.n_draws, **ceiling})
    return pd.DataFrame(rows).fillna("")


def draws_buy(measured: list[Measured]) -> pd.DataFrame:
    """Return the linear datamodelling score of means over draws, and what they take."""
    rows = []
    for one in measured:
        table = one.table("accuracy_by_draws").query("losses == 'all'")
        for method, own in table.groupby("method", sort=False):
            first = own.iloc[0]
            of_draws = own.set_index("draws_averaged")["lds"]
            rows.append(
                {
                    "experiment": f"`{one.name}`",
                    "method": METHOD_LABELS[method],
                    "trainings a draw": f"{first['trainings']:.0f}",
                    **{f"T = {n}": f"{of_draws.get(n):.2f}" for n in _DRAWS if n in of_draws},
                }
            )
    return pd.DataFrame(rows).fillna("")


def top_samples(measured: list[Measured]) -> pd.DataFrame:
    """Return the mean Jaccard index of the top training samples by two seeds."""
    rows = []
    for one in measured:
        for (k, chance), own in one.table("top_samples").groupby(["k", "by_chance"]):
            cells = {
                METHOD_LABELS[m]: f"{v:.2f}"
                for m, v in zip(own["method"], own["jaccard"], strict=True)
            }
            what = {"experiment": f"`{one.name}`", "T": one.n_draws}
            rows.append(what | {"top k (chance)": f"{k} ({chance:.2f})", **cells})
    return pd.DataFrame(rows).fillna("")


def distribution_tests(measured: list[Measured]) -> pd.DataFrame:
    """Return the paired and the unpaired test of leave-one-out's losses, and their distances."""
    rows = []
    for one in measured:
        tests = one.table("distribution_tests").set_index("test")
        found = one.table("distributions").set_index("quantity")
        cells = {
            f"{test}: p < 0.05 → FDR 5 %": f"{percent(row['significant'])} → "
            f"{percent(row['benjamini_hochberg'])} %"
            for test, row in tests.iterrows()
        }
        for name, label in (("mu", "f-INE's μ"), ("wasserstein2", "2-Wasserstein")):
            row = found.loc[name]
            cells[f"{label} (dealt out)"] = (
                f"{row['median_size']:.2g} ({row['median_size_same']:.2g})"
            )
        means = {f"{test}: mean p": f"{row['mean_pvalue']:.3f}" for test, row in tests.iterrows()}
        rows.append({"experiment": f"`{one.name}`", "T": one.n_draws, **means, **cells})
    return pd.DataFrame(rows)


def mislabelled(measured: list[Measured]) -> pd.DataFrame:
    """Return how well flipped labels are found, by one draw and by the mean over draws."""
    words = {"self": "score on itself", "test": "harm to test samples"}
    rows = []
    for one in measured:
        for by, own in one.table("mislabelled").groupby("by"):
            cells = {
                METHOD_LABELS[row.method]: f"{row.one_draw:.2f} → {row.mean_of_draws:.2f}"
                for row in own.itertuples()
            }
            what = {"experiment": f"`{one.name}`", "T": one.n_draws, "by": words[by]}
            rows.append(what | cells)
    return pd.DataFrame(rows).fillna("")
