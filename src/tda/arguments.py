"""The options of estimators as arguments of `run_estimators.py`, as the registry has them.

Nothing heavy is imported before the arguments are known to be right.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from src.argument_types import number, positive_int
from src.cli import ArgumentParser
from src.errors import UserError
from src.experiments import FURTHER_METHODS, METHODS, OPTIONS


def add_estimators(parser: ArgumentParser) -> None:
    """Add --method, which takes several, and the options of each."""
    parser.add_argument(
        "--method",
        nargs="+",
        choices=FURTHER_METHODS,
        required=True,
        metavar="M",
        help=f"of {', '.join(FURTHER_METHODS)}",
    )
    for name, option in OPTIONS.items():
        parser.add_argument(
            f"--{name}",
            type=_parser_of(option.default),
            choices=option.choices or None,
            default=option.default,
            metavar=None if option.choices else "N" if isinstance(option.default, int) else "X",
            help=option.help,
        )


def options_by_method(args: Namespace) -> dict[str, dict[str, object]]:
    """Return the options of each method that is asked for, by field of its estimator.

    Raises:
        UserError: There is an option of another method.
    """
    for method in (METHODS[name] for name in FURTHER_METHODS if name not in args.method):
        for option in method.options:
            name = f"{method.name}_{option.field}"
            if getattr(args, name) != option.default:
                raise UserError(f"--{name} has no effect without --method {method.name}")
    return {
        name: {o.field: getattr(args, f"{name}_{o.field}") for o in METHODS[name].options}
        for name in args.method
    }


def _parser_of(default: str | int | float) -> Callable[[str], str | int | float]:
    if isinstance(default, str):
        return str
    return positive_int if isinstance(default, int) else number(above=0)
