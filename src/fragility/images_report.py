"""Tables and figures of the studies of images: what is predicted against what retraining does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.analysis.stats import COEFFICIENTS
from src.fragility.compare import over_seeds, possible, with_raw
from src.fragility.points import TEST_POINTS, column_of
from src.fragility.published import published
from src.plots.fragility_images import agreement_by_decay, agreement_table, changes
from src.plots.style import save_figure
from src.reports.cells import cell_text, markdown
from src.storage.files import write_atomically

Results = dict[str, dict[int, dict[str, Any]]]
# What of the optimum is told beside them, where it is known.
OPTIMUM = (
    "n_train",
    "gradient_norm",
    "weight_norm",
    "decrement",
    "smallest",
    "train_loss",
    "train_accuracy",
    "test_accuracy",
)


def by_seed(results: Results) -> pd.DataFrame:
    """Return a row for each configuration, group of samples and seed.

    Beside what `src.fragility.compare.with_raw` returns: `control`, the control's change of the
    test point's loss, and `typical`, the median size of the samples' changes less the control's;
    `residual`, the solver's; what is known of the optimum; and where it is known of the ends of
    retraining, the largest norm of the gradient, `gradient_norm_retrained`, `left`, the largest
    share that is left of the decrement that leaving a sample out made
    (`src.fragility.quasi_newton`), and `unfinished`, of how many samples that is more than the
    tolerance.
    """
    rows = []
    for name, seeds in results.items():
        for seed, found in seeds.items():
            for group in groups(found):
                predicted, retrained, control = pairs(found, group)
                column = column_of(group)
                rows.append(
                    {
                        "configuration": name,
                        "network": found["settings"].get("network", "small"),
                        "images": found["settings"].get("images", "mnist"),
                        "decay": found["settings"]["decay"],
                        "group": group,
                        "seed": seed,
                        "samples": len(predicted),
                        **with_raw(predicted, retrained - control, retrained),
                        "control": control,
                        "typical": float(np.median(np.abs(retrained - control))),
                        "test_loss": float(found["test_losses"][column]),
                        "residual": float(found["residual"][column]),
                        **{key: found[key] for key in OPTIMUM if key in found},
                        **_retrained(found, group),
                    }
                )
    return pd.DataFrame(rows)


def _retrained(found: dict[str, Any], group: str) -> dict[str, float]:
    if "gradient_norms" not in found:
        return dict.fromkeys(("gradient_norm_retrained", "left", "unfinished"), np.nan)
    chosen = found[f"group_{group}"]
    left = (found["decrements"] / found["decrements_before"])[chosen]
    return {
        "gradient_norm_retrained": float(found["gradient_norms"][chosen].max()),
        "left": float(left.max()),
        "unfinished": float((left > found["settings"]["retraining_tolerance"]).sum()),
    }


def groups(found: dict[str, Any]) -> list[str]:
    """Return the names of the groups of samples that are left out."""
    return [key.removeprefix("group_") for key in found if key.startswith("group_")]


def pairs(found: dict[str, Any], group: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Return what is predicted and what retraining changes, (K,) each, and the control's change."""
    column, chosen = column_of(group), found[f"group_{group}"]
    predicted, retrained = (
        found[key][chosen, column].numpy() for key in ("predicted", "retrained")
    )
    return predicted, retrained, float(found["control"][column])


def over_all_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each configuration and group: means over seeds with 95 % intervals.

    Published coefficients stand beside those of the largest influence.
    """
    of = ["configuration", "network", "images", "decay", "group"]
    numbers = [c for c in rows.columns if c not in (*of, "seed", "samples")]
    table = []
    for key, own in rows.groupby(of, sort=False):
        row = {**dict(zip(of, key, strict=True)), "seeds": len(own)}
        row["samples"] = int(own["samples"].iloc[0])
        for name in numbers:
            mean_and_limits = over_seeds(own[name].to_numpy(), possible(name))
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), mean_and_limits, strict=True))
        kind, point = row["group"].split("_")
        if kind == "top" and row["decay"] in (0.0, 1e-3):
            known = published(row["network"], row["images"], decays=row["decay"] > 0, point=point)
            row |= {f"{name}_published": value for name, value in known.items()}
        table.append(row)
    return pd.DataFrame(table)


def _texts(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table as people read it."""

    def with_interval(row: pd.Series, name: str) -> str:
        value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
        if np.isnan(value):
            return "–"
        return f"{value:.2f}" + ("" if np.isnan(low) else f" ({low:.2f} to {high:.2f})")

    def number(row: pd.Series, name: str, as_text: str = ".2g") -> str:
        value = row.get(name, np.nan)
        return "–" if pd.isna(value) else f"{value:{as_text}}"

    return pd.DataFrame(
        [
            {
                "configuration": row["configuration"],
                "training images": number(row, "n_train", ",.0f"),
                "samples left out": f"{row['samples']}, {GROUPS[row['group']]}",
                "seeds": cell_text(int(row["seeds"]), 0),
                **{
                    part: text
                    for name in COEFFICIENTS
                    for part, text in (
                        (name.capitalize(), with_interval(row, name)),
                        (f"{name.capitalize()}, published", number(row, f"{name}_published")),
                    )
                },
                "slope": with_interval(row, "slope"),
                "slope, control not subtracted": with_interval(row, "slope_raw"),
                "control / typical change": number(
                    {"r": abs(row["control"]) / row["typical"] if row["typical"] else np.nan}, "r"
                ),
                "training accuracy": number(row, "train_accuracy"),
                "gradient norm": number(row, "gradient_norm"),
                "largest after retraining": number(row, "gradient_norm_retrained"),
                "decrement left": number(row, "left"),
                "unfinished": number(row, "unfinished", ".1f"),
                "smallest eigenvalue": number(row, "smallest"),
                "residual": number(row, "residual"),
            }
            for _, row in table.iterrows()
        ]
    )


GROUPS = {
    "top_highest": "largest influence, test point of highest loss",
    "top_median": "largest influence, test point of median loss",
    "percentile_highest": "30th percentile, test point of highest loss",
}


def _write_tables(results: Results, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = by_seed(results)
    table = over_all_seeds(rows)
    texts = _texts(table)
    for name, frame in (("seeds", rows), ("agreement", table)):
        write_atomically(
            folder / f"{name}.csv", lambda file, frame=frame: frame.to_csv(file, index=False)
        )
    text = markdown(texts, [False] * texts.shape[1])
    write_atomically(folder / "agreement.md", lambda file: file.write_text(text))
    return rows, table


def _sentences(table: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each row of the table."""
    for _, row in _texts(table).iterrows():
        yield (
            f"{row['configuration']}, {row['samples left out']}: Pearson {row['Pearson']}, "
            f"Spearman {row['Spearman']}, slope {row['slope']}; seeds: {row['seeds']}; "
            f"training accuracy {row['training accuracy']}, "
            f"gradient norm at the optimum {row['gradient norm']}, after retraining up to "
            f"{row['largest after retraining']}; residual {row['residual']}"
        )


def write_mnist(results: Results, folder: Path) -> list[str]:
    """Write what there is of figure 3: scatter plots, and agreement against the decay."""
    rows, table = _write_tables(results, folder)
    for group in ("top_highest", "percentile_highest"):
        panels = {
            _decay_of(seeds): {seed: pairs(found, group) for seed, found in seeds.items()}
            for seeds in sorted(results.values(), key=_decay)
            if all(group in groups(found) for found in seeds.values())
        }
        if panels:
            subject = f"change of the test loss, control subtracted; line: equal; {GROUPS[group]}"
            save_figure(changes(panels), folder / "figures", f"changes_{group}", subject)
    top = [frame[frame["group"] == "top_highest"] for frame in (rows, table)]
    figure = agreement_by_decay(*top)
    save_figure(figure, folder / "figures", "agreement_by_decay", GROUPS["top_highest"])
    return list(_sentences(table))


def _decay(seeds: dict[int, dict[str, Any]]) -> float:
    return next(iter(seeds.values()))["settings"]["decay"]


def _decay_of(seeds: dict[int, dict[str, Any]]) -> str:
    decay = _decay(seeds)
    return f"decay {decay:g}" if decay else "no decay"


def write_deep(results: Results, folder: Path) -> list[str]:
    """Write what there is of table 1, as a table and as a figure."""
    rows, table = _write_tables(results, folder)
    for point in TEST_POINTS:
        group = f"top_{point}"
        figure = agreement_table(*(f[f["group"] == group] for f in (rows, table)))
        save_figure(figure, folder / "figures", f"agreement_{point}", GROUPS[group])
    return list(_sentences(table))
