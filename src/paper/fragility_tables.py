"""The tables of RESULTS.md on the study of fragile influence functions."""

from __future__ import annotations

import pandas as pd

from src.paper.measured import Measured
from src.paper.table_cells import interval


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
                return f"{row['mean']:.2f} {interval(row['low'], row['high'], '.2f')}".strip()

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
