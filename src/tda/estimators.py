"""The estimators, by the methods that they compute, as the registry of methods names them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module

from src.errors import UserError
from src.experiments import METHODS
from src.tda.estimator import Estimator


@cache
def estimator_classes() -> dict[str, type[Estimator]]:
    """Return the class that computes each method, by the method's name."""
    return {
        name: getattr(import_module(module), cls)
        for name, method in METHODS.items()
        for module, _, cls in [method.estimator.partition(":")]
    }


def estimator_of(method: str, **options: object) -> Estimator:
    """Return what computes a method, with options of its own in the place of the defaults."""
    defaults = {option.field: option.default for option in METHODS[method].options}
    return estimator_classes()[method](**defaults | options)


def estimators_of(given: Sequence[str | Estimator]) -> dict[str, Estimator]:
    """Return what computes each method.

    Args:
        given: Names of methods, whose estimators have their default options, or estimators.

    Raises:
        UserError: There is no such method, none at all, or one twice with different options.
    """
    classes, found = estimator_classes(), {}
    if isinstance(given, str) or not isinstance(given, Iterable):
        given = [given]
    for one in given:
        if isinstance(one, str):
            if one not in classes:
                raise UserError(f"unknown method {one!r}: choose from {', '.join(classes)}")
            asked = {one: estimator_of(one)}
        elif isinstance(one, tuple(classes.values())):
            asked = dict.fromkeys(one.methods, one)
        else:
            names = ", ".join(estimator.__name__ for estimator in dict.fromkeys(classes.values()))
            raise UserError(
                f"{one!r} is neither the name of a method nor an estimator with its options, an "
                f"object of {names}"
            )
        for method, estimator in asked.items():
            if found.setdefault(method, estimator) != estimator:
                raise UserError(f"{method} is asked for twice, with different options")
    if not found:
        raise UserError(f"no method is asked for: choose from {', '.join(classes)}")
    return found
