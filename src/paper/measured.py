"""What experiments were measured to give, as small tables that the repository keeps.

Score tensors are large and are not kept; what they come down to is: a folder of CSV files for each
experiment, from which RESULTS.md takes its tables (`src.paper.results`).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from src.analysis.bootstrap import Estimate
from src.errors import UserError
from src.experiments import REPOSITORY
from src.storage.files import write_atomically

FOLDER = REPOSITORY / "docs" / "measured"
_DIGITS = 6  # significant ones that are kept


@dataclass(frozen=True)
class Measured:
    """The tables of one experiment.

    Attributes:
        name: Its name, as the folder's.
        folder: The folder.
    """

    name: str
    folder: Path

    @classmethod
    def of(cls, name: str, folder: Path = FOLDER) -> Measured:
        """Return what was measured of an experiment.

        Raises:
            UserError: Nothing was.
        """
        if not (folder / name / "about.csv").exists():
            raise UserError(
                f"nothing was measured of {name} yet: compute its scores and run: python "
                f"run_paper.py --record {name}"
            )
        return cls(name, folder / name)

    def table(self, name: str) -> pd.DataFrame:
        """Return a table, as it was written.

        Raises:
            UserError: There is none: what it is of was not computed when this was recorded.
        """
        path = self.folder / f"{name}.csv"
        if not path.exists():
            raise UserError(f"{self.folder} has no {path.name}, which a table is made from")
        return pd.read_csv(path)

    @cached_property
    def about(self) -> dict[str, str]:
        """What was run, by name."""
        frame = pd.read_csv(self.folder / "about.csv", dtype=str, keep_default_na=False)
        return dict(frame.itertuples(index=False))

    @cached_property
    def pvalues(self) -> pd.DataFrame:
        """The p-values in a few numbers, rows (draws, method)."""
        return self.table("pvalues").set_index(["draws", "method"])

    @property
    def methods(self) -> set[str]:
        """The methods that there are numbers of."""
        return {*self.pvalues.index.unique("method")}

    @property
    def n_draws(self) -> int:
        """T."""
        return int(self.about["draws"])

    def estimates(self, n_draws: int) -> dict[str, Estimate]:
        """Return the mean p-value by the t-test over the first draws, by method."""
        drawn = self.table("resamples").query("draws == @n_draws").set_index("method")
        values = self.pvalues.loc[n_draws, "mean_pvalue_ttest"]
        return {
            method: Estimate(value, drawn.loc[method].drop("draws").to_numpy(dtype=float), n_draws)
            for method, value in values.items()
        }


def write_tables(folder: Path, tables: dict[str, pd.DataFrame], about: dict[str, object]) -> Path:
    """Write tables as CSV files of few digits, by name, into a folder, and return it.

    Args:
        folder: The folder.
        tables: By name.
        about: What was run, by name, which is the table `about`, written last.
    """
    facts = pd.DataFrame({"name": list(about), "value": [str(v) for v in about.values()]})
    for name, frame in {**tables, "about": facts}.items():
        text = io.StringIO()
        frame.to_csv(text, index=False, float_format=f"%.{_DIGITS}g", lineterminator="\n")
        write_atomically(
            folder / f"{name}.csv",
            lambda file, t=text: file.write_text(t.getvalue(), encoding="utf-8"),
        )
    return folder
