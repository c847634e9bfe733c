"""The tables of RESULTS.md on the study of fragile influence functions."""

from __future__ import annotations

import pandas as pd

from src.paper.measured import Measured
from src.paper.table_cells import interval

_KINDS = {"top": "largest influence", "percentile": "30th percentile"}


def iris_fits(measured: list[Measured]) -> pd.DataFrame:
    """Return, for each network, how well influence on the test loss predicts retraining."""
    rows = []
    for one in measured:
        losses = one.table("agreement").query("of == 'losses'")
        single = one.table("single_seeds").groupby("configuration")["spearman"]
        ends = single.agg(["min", "max"])
        optima = one.table("optima").set_index(["configuration", "value"])
        for name, own in losses.groupby("configuration", sort=False):
            first, fits = own.iloc[0], own.set_index(["predicted_by", "answer", "value"])

            def cell(*key: str, fits: pd.DataFrame = fits) -> str:
                row = fits.loc[key]
                limits = interval(row["low"], row["high"], "{:.2f}".format)
                return f"{row['mean']:.2f} {limits}".strip()

            published = fits.loc[("exact", "retrained", "spearman"), "published"]
            rows.append(
                {
                    "network": f"{first['activation']}, depth {first['depth']}, width "
                    f"{first['width']}",
                    "decay": f"{first['decay']:g}" if first["decay"] else "none",
                    "seeds": int(own["seeds"].max()),
                    "Spearman": cell("exact", "retrained", "spearman"),
                    "single seeds": f"{ends.loc[name, 'min']:.2f} to {ends.loc[name, 'max']:.2f}",
                    "published": "" if pd.isna(published) else f"{published:g}",
                    "Pearson": cell("exact", "retrained", "pearson"),
                    "slope": cell("exact", "retrained", "slope"),
                    "by Gauss–Newton": cell("ggn", "retrained", "spearman"),
                    "Gauss–Newton, response": cell("ggn", "response", "spearman"),
                    "response, retraining": cell("response", "retrained", "spearman"),
                    "gradient norm": f"{optima.loc[(name, 'gradient_norm'), 'mean']:.0e}",
                    "its mean over steps": f"{optima.loc[(name, 'drift'), 'mean']:.0e}",
                    "top eigenvalue": f"{optima.loc[(name, 'top_eigenvalue'), 'mean']:.1f}",
                }
            )
    return pd.DataFrame(rows)


def image_fits(measured: list[Measured]) -> pd.DataFrame:
    """Return, for each network and group of images, how well influence predicts retraining."""
    rows = []
    for one in measured:
        single = one.table("single_seeds").groupby(["configuration", "group"])["spearman"]
        ends = single.agg(["min", "max"])
        for _, row in one.table("agreement").iterrows():
            kind, point = row["group"].split("_")
            low, high = ends.loc[(row["configuration"], row["group"]), ["min", "max"]]
            several = row["seeds"] > 1 and pd.notna(low)
            rows.append(
                {
                    "network": row["network"],
                    "images": f"{row['n_train']:.0f} of {row['images']}",
                    "decay": f"{row['decay']:g}" if row["decay"] else "none",
                    "test loss": point,
                    "left out": f"{row['samples']}, {_KINDS[kind]}",
                    "seeds": int(row["seeds"]),
                    **_fits(row),
                    "single seeds": f"{low:.2f} to {high:.2f}" if several else "",
                    "control / change": f"{abs(row['control']) / row['typical']:.2g}"
                    if row["typical"]
                    else "",
                    "gradient norm": f"{row['gradient_norm']:.0e}",
                    "after retraining": _known(row, "gradient_norm_retrained", ".0e"),
                    "smallest eigenvalue": _known(row, "smallest", ".0e"),
                    "test accuracy": f"{row['test_accuracy']:.2f}",
                }
            )
    # What is known of none is no column.
    return pd.DataFrame(rows).loc[:, lambda table: (table != "").any()]


def _fits(row: pd.Series) -> dict[str, str]:
    """Return the coefficients and the slope, with intervals, and the published coefficients."""
    found = {}
    for name in ("spearman", "pearson", "slope"):
        limits = interval(row[f"{name}_low"], row[f"{name}_high"], "{:.2f}".format)
        found[name.capitalize()] = f"{_known(row, name, '.2f')} {limits}".strip()
        if name != "slope":
            found[f"{name.capitalize()}, published"] = _known(row, f"{name}_published", "g")
    return found


def _known(row: pd.Series, name: str, form: str) -> str:
    value = row.get(name)
    return "" if value is None or pd.isna(value) else f"{value:{form}}"
