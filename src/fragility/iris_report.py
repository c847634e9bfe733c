"""What the study of iris came to: tables, figures, and sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from src.fragility.iris_tables import (
    CONFIGURATION,
    agreement_summary,
    agreements,
    norms_of_base,
    optima,
    optima_summary,
)
from src.plots.fragility_iris import curvature_and_depth, influence_against_retraining, why
from src.plots.style import save_figure
from src.storage.files import write_atomically


def written(results: dict[str, dict[int, dict[str, Any]]], folder: Path) -> list[str]:
    """Write tables and figures into a folder; return sentences of what stands in them.

    Args:
        results: What was measured, by the configuration's name and the seed.
        folder: Where the files go.
    """
    seeds, at_optima = agreements(results), optima(results)
    summary, of_optima = agreement_summary(seeds), optima_summary(at_optima)
    tables = {
        "agreement_seeds": seeds,
        "agreement": summary,
        "optima_seeds": at_optima,
        "optima": of_optima,
    }
    for name, table in tables.items():
        write_atomically(folder / f"{name}.csv", lambda path, t=table: t.to_csv(path, index=False))
    n_seeds = at_optima["seed"].nunique()
    subject = f"iris, {n_seeds} seeds: means, 95 % intervals by Student's t, single seeds"
    figures = {
        "figure1": influence_against_retraining(norms_of_base(results), summary, seeds),
        "figure2": curvature_and_depth(summary, seeds, of_optima, at_optima),
        "figure3": why(summary, seeds, of_optima, at_optima),
    }
    for name, figure in figures.items():
        save_figure(figure, folder, name, subject)
    return [*_fits(summary), *_optima(at_optima)]


def _fits(summary: pd.DataFrame) -> list[str]:
    fits = summary[
        (summary["predicted_by"] == "exact")
        & (summary["of"] == "losses")
        & (summary["value"] == "spearman")
    ]
    lines = []
    for row in fits.itertuples():
        published = "" if pd.isna(row.published) else f"; published {row.published:g}"
        lines.append(
            f"{row.configuration}: Spearman of influence and retraining {row.mean:.2f} "
            f"[{row.low:.2f}, {row.high:.2f}] of {row.seeds} seeds{published}"
        )
    return lines


def _optima(at_optima: pd.DataFrame) -> list[str]:
    return [
        f"{name}: norm of the gradient at the optimum median {some['gradient_norm'].median():.1e}, "
        f"largest {some['gradient_norm'].max():.1e}; of its mean over the control's steps "
        f"{some['drift'].median():.1e}, {some['drift'].max():.1e}"
        for name, some in at_optima.groupby(CONFIGURATION[0], sort=False)
    ]
