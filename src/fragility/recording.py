"""Recording of a study: the tables of its report, as small files that the repository keeps."""

from __future__ import annotations

import datetime
from pathlib import Path

import pandas as pd

from src.ensemble.draws import seed_ids_of
from src.errors import UserError
from src.fragility.images_report import over_all_seeds
from src.fragility.studies import load_study
from src.paper.measured import FOLDER, Measured, write_tables
from src.reports.revision import library_versions

# What is kept of a study: its means and intervals, and what its optima are like.
_TABLES = ("agreement", "optima")
_VALUES = ["pearson", "spearman", "slope"]  # of the long tables


def record_study(
    study: str,
    scale: str,
    report: Path,
    folder: Path = FOLDER,
    *,
    part: bool = False,
) -> Path:
    """Keep the tables of a study's report, and return the folder.

    Args:
        study: The study.
        scale: Its scale.
        report: Folder of the report.
        folder: Where the folders of what was measured are.
        part: Whether the report is of some configurations; the others stay as they were recorded,
            as do, in a study of images, other seeds of the same ones.

    Raises:
        UserError: There is no report.
    """
    if not (report / "agreement.csv").exists():
        raise UserError(f"{report} has no report: run with --report first")
    tables = {}
    for name in _TABLES:
        if (report / f"{name}.csv").exists():
            frame = pd.read_csv(report / f"{name}.csv")
            if name == "agreement" and "value" in frame:
                frame = frame[frame["value"].isin(_VALUES)]
            tables[name] = frame
    of_images = (report / "seeds.csv").exists()  # where a row is of a group of samples
    if of_images:
        tables["single_seeds"] = pd.read_csv(report / "seeds.csv")
    if (report / "agreement_seeds.csv").exists():
        frame = pd.read_csv(report / "agreement_seeds.csv")
        frame = frame.query("of == 'losses' and predicted_by == 'exact' and answer == 'retrained'")
        tables["single_seeds"] = frame[["configuration", "seed", *_VALUES]]
    measured = folder / f"fragility_{study}_{scale}"
    if part and (measured / "about.csv").exists():
        before = Measured.of(measured.name, folder)
        if of_images:
            single = _with_other_seeds(before.table("single_seeds"), tables["single_seeds"])
            tables |= {"single_seeds": single, "agreement": over_all_seeds(single)}
        order = [c.name for c in load_study(study).configurations(scale)]
        tables = {name: _among(before.table(name), new, order) for name, new in tables.items()}
    about = {
        "study": study,
        "scale": scale,
        "seed_id": seed_ids_of(tables["single_seeds"]["seed"].unique().tolist()),
        "date": datetime.date.today().isoformat(),
        **library_versions(),
    }
    return write_tables(measured, tables, about)


def _with_other_seeds(before: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Return new rows behind those before of other seeds of the same configurations.

    Rows that were recorded with their coefficients alone are left out.
    """
    of = ["configuration", "seed"]
    again = pd.MultiIndex.from_frame(before[of]).isin(pd.MultiIndex.from_frame(new[of]))
    same = before["configuration"].isin(new["configuration"])
    return pd.concat([before[same & ~again & before["samples"].notna()], new])


def _among(before: pd.DataFrame, new: pd.DataFrame, order: list[str]) -> pd.DataFrame:
    """Return new rows and those before of other configurations, in the order of all."""
    others = before[~before["configuration"].isin(new["configuration"])]
    position = {name: k for k, name in enumerate(order)}
    return pd.concat([others, new]).sort_values(
        "configuration", key=lambda names: names.map(position), kind="stable"
    )
