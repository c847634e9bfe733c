"""The page of the paper's tables and figures: a part for each exhibit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from src.errors import UserError
from src.experiments import Paths
from src.paper.drawing import Drawing
from src.paper.exhibits import EXHIBITS, Exhibit, n_to_score
from src.paper.needed import Asked, Need, commands, merged, needs_of
from src.reports.parts import OVERVIEW
from src.reports.reading import listed
from src.reports.report import Report
from src.reports.revision import what_makes_a_page
from src.reports.scores import check_scores

_TITLES = {
    "paper": "The paper's tables and figures",
    "quick": "The paper's tables and figures, on the bundled digits",
}


def draw_those_there(
    exhibits: list[Exhibit], asked: Asked, paths: Paths, *, allow_missing: bool, alpha: float
) -> Iterator[str]:
    """Draw the exhibits whose scores are there; yield what was drawn, and how to make the others.

    Args:
        exhibits: The exhibits.
        asked: Scale, seeds and samples.
        paths: Every path below the root.
        allow_missing: Whether to draw also those that lack scores, from the seeds and methods that
            are there.
        alpha: Significance level, and false discovery rate.

    Raises:
        UserError: There is none to draw, or scores are not sound.
    """
    lacking: list[Need] = []
    page = None
    for exhibit in exhibits:
        needs = needs_of(exhibit, asked, paths)
        if missing := [need for need in needs if not need.is_there]:
            lacking += missing
            if not allow_missing or any(need.n_complete < 2 for need in needs):
                yield f"{exhibit.name}: not drawn, scores are missing of " + listed(
                    need.experiment.name for need in missing
                )
                continue
        page = draw(exhibit, asked, paths, allow_missing=allow_missing, alpha=alpha)
        yield f"{exhibit.name}: drawn"
    if lacking:
        yield "what is missing is made by:"
        for command in commands(merged(lacking), asked, paths):
            yield f"  {command}"
    if page is None:
        raise UserError("nothing is drawn: the commands above make what is missing")
    yield str(page)


def draw(
    exhibit: Exhibit, asked: Asked, paths: Paths, *, allow_missing: bool, alpha: float
) -> Path:
    """Write an exhibit into the page of its scale, and return the page's path.

    Raises:
        UserError: Scores are missing or not alike, or a file cannot be written.
    """
    drawing = Drawing(
        paths,
        exhibit.needs(asked.scale),
        exhibit.seed_ids(asked.scale, asked.seed_ids),
        allow_missing,
        alpha,
    )
    check_scores(paths, drawing.experiments, drawing.load)
    number = list(EXHIBITS).index(exhibit.name) + 1
    report = _part(
        asked, paths, f"{number}_{exhibit.name}", exhibit.title, exhibit.name, {"alpha": alpha}
    )
    exhibit.write(report, drawing)
    report.close()
    return _close_overview(asked, paths)


def _part(
    asked: Asked,
    paths: Paths,
    key: str,
    heading: str,
    exhibit: str | None = None,
    settings: dict[str, object] | None = None,
) -> Report:
    scale = [] if asked.scale == "paper" else ["--scale", asked.scale]
    only = [] if exhibit is None else ["--only", exhibit]
    return Report(
        paths.paper(asked.scale),
        _TITLES[asked.scale],
        key,
        heading,
        settings or {},
        asked.scale,
        paths.command("run_paper.py", *only, *scale),
    )


def _close_overview(asked: Asked, paths: Paths) -> Path:
    """Write anew what stands first on the page: which scores there are now."""
    overview = _part(asked, paths, OVERVIEW, "What there is")
    overview.table(
        "exhibits",
        overview_table(asked, paths),
        "Experiments of each table and figure",
        "Seeds whose scores by all methods are there now; a part says itself how many it rests on.",
        index=False,
    )
    overview.facts("versions", what_makes_a_page(), "Versions")
    return overview.close()


def overview_table(asked: Asked, paths: Paths) -> pd.DataFrame:
    """Return a row for each exhibit and experiment: how many seeds are there, of how many."""
    return pd.DataFrame(
        [
            {
                "exhibit": exhibit.name,
                "experiment": need.experiment.name,
                "training_samples_scored": need.n_scored or n_to_score(need.experiment),
                "seeds": need.n_complete,
                "seeds_wanted": len(need.seed_ids),
            }
            for exhibit in EXHIBITS.values()
            for need in needs_of(exhibit, asked, paths)
        ]
    )
