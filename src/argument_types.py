"""What single arguments are parsed by: functions of a text that return its value, or refuse it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable

from src.errors import UserError
from src.experiments import MOST_SEEDS, STEPS, Experiment, parse_experiment


def experiment_name(name: str) -> Experiment:
    """Parse the name of an experiment."""
    try:
        return parse_experiment(name)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def step_of(name: str) -> str:
    """Return the step that computes a method, such as gd_and_gc for gd; another name as it is."""
    return next((step for step, methods in STEPS.items() if name in methods), name)


def seed_ids(text: str) -> list[int]:
    """Parse numbers of seeds and ranges of them, such as 0,2,5-9."""
    numbers: set[int] = set()
    for part in text.split(","):
        # int refuses numbers of thousands of digits.
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part)
        first, last = match.groups() if match else (MOST_SEEDS, None)
        start, stop = int(first), int(first if last is None else last)
        if max(start, stop) >= MOST_SEEDS:
            raise argparse.ArgumentTypeError(
                f"{part!r} is not a number from 0 to {MOST_SEEDS - 1}, nor a range of them such as "
                "2-5"
            )
        if stop < start:
            raise argparse.ArgumentTypeError(f"the range {part!r} ends before it begins")
        numbers.update(range(start, stop + 1))
    return sorted(numbers)


def several_seed_ids(text: str) -> list[int]:
    """Parse numbers of seeds as `seed_ids` does, two at least."""
    numbers = seed_ids(text)
    if len(numbers) < 2:
        raise argparse.ArgumentTypeError(f"a standard deviation takes two at least, not {text}")
    return numbers


def seed_ids_text(numbers: Iterable[int]) -> str:
    """Return numbers of seeds as `seed_ids` parses them, such as 0,2,5-9."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def gpu_list(text: str) -> list[str]:
    """Parse the numbers of GPUs, such as 0,1,2,3."""
    numbers = text.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of GPUs such as 0,1,2,3")
    return [str(int(number)) for number in numbers]


def name_and_value(text: str) -> tuple[str, str]:
    """Parse NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not (name.replace("-", "").replace("_", "").isalnum() and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def index(text: str) -> int:
    """Parse a whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def number(
    *, above: float | None = None, at_least: float | None = None, below: float | None = None
) -> Callable[[str], float]:
    """Return a parser of numbers within the given limits."""

    def parse(text: str) -> float:
        limits = [
            f"{word} {limit:g}"
            for word, limit in (("above", above), ("at least", at_least), ("below", below))
            if limit is not None
        ]
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if (
            not abs(value) < float("inf")
            or (above is not None and not value > above)
            or (at_least is not None and not value >= at_least)
            or (below is not None and not value < below)
        ):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {' and '.join(limits)}")
        return value

    return parse
