"""What is there of each exhibit and what the rest would cost, in lines for people."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import torch

from src.ensemble.setup import Setup
from src.errors import UserError
from src.experiments import Experiment, Paths
from src.paper.costs import seconds_of_steps
from src.paper.exhibits import Exhibit
from src.paper.needed import Asked, Need, commands, merged, needs_of
from src.reports.reading import counted, listed


class Costs:
    """What missing files of experiments would cost on a device, measured once for those alike.

    Args:
        paths: Every path below the root.
        device: The device.
        backbone: Of a ViT whose checkpoints do not say it.
    """

    def __init__(self, paths: Paths, device: torch.device, backbone: str) -> None:
        self._paths = paths
        self._device = device
        self._backbone = backbone
        self._measured = cache(self._measure)  # a hub that is not reached is asked once

    def seconds(self, need: Need) -> float:
        """Return the seconds that the files an experiment lacks would take, one after another.

        Raises:
            UserError: They cannot be measured, since samples or a backbone are not there.
        """
        # What a seed drives costs nothing.
        alike = replace(need.experiment, randomness="", backbone=self._backbone)
        of_steps = self._measured(alike, need.n_scored)
        if isinstance(of_steps, UserError):
            raise of_steps
        return sum(of_steps[step] * len(seeds) for step, seeds in need.missing.items())

    def _measure(
        self, experiment: Experiment, n_scored: int | None
    ) -> dict[str, float] | UserError:
        try:
            return seconds_of_steps(Setup.load(experiment, self._paths, self._device, n_scored))
        except UserError as error:
            return error


def listing(exhibits: list[Exhibit], asked: Asked, paths: Paths, costs: Costs) -> Iterator[str]:
    """Yield the lines of every exhibit, and behind them the commands and costs of all together."""
    found = [(exhibit, needs_of(exhibit, asked, paths)) for exhibit in exhibits]
    reasons: dict[str, list[str]] = {}

    def cost(need: Need) -> float:
        try:
            return costs.seconds(need)
        except UserError as error:
            names = reasons.setdefault(str(error), [])
            if need.experiment.name not in names:
                names.append(need.experiment.name)
            return math.nan

    for exhibit, needs in found:
        yield f"{exhibit.name}: {exhibit.title}"
        for need in needs:
            scored = "" if need.n_scored is None else f" ({need.n_scored} training samples)"
            there = f"{need.n_complete} of {counted(len(need.seed_ids), 'seed')}"
            rest = "" if need.is_there else f", the rest {duration(cost(need))}"
            yield f"  {need.experiment.name}{scored}: {there}{rest}"
    missing = [n for n in merged([n for _, needs in found for n in needs]) if not n.is_there]
    if not missing:
        yield "all scores are there"
        return
    for reason, names in reasons.items():
        yield f"not measured, {listed(names)}: {reason}"
    seconds = [cost(need) for need in missing]
    known = [value for value in seconds if not math.isnan(value)]
    if known:
        yield (
            f"what is missing of {len(known)} of {counted(len(missing), 'experiment')}: "
            f"{duration(sum(known))} on this machine, one job after another"
        )
    yield "what makes it:"
    for command in commands(missing, asked, paths):
        yield f"  {command}"


def duration(seconds: float) -> str:
    """Return a duration for people; NaN is one that was not measured."""
    if math.isnan(seconds):
        return "not measured"
    if seconds < 90:
        return f"about {seconds:.0f} s"
    if seconds < 90 * 60:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.{0 if seconds > 10 * 3600 else 1}f} h"
