"""The estimators by the methods that they compute; a further one is a module, and an entry here."""

from __future__ import annotations

from collections.abc import Sequence

from src.errors import UserError
from src.tda.ats import AdditionalStep
from src.tda.estimator import Estimator
from src.tda.gradient_similarity import GradientSimilarity
from src.tda.influence import InfluenceFunction
from src.tda.loo import LeaveOneOut

ESTIMATORS: tuple[type[Estimator], ...] = (
    LeaveOneOut,
    AdditionalStep,
    InfluenceFunction,
    GradientSimilarity,
)


_BY_METHOD = {method: estimator for estimator in ESTIMATORS for method in estimator.methods}


def estimators_of(given: Sequence[str | Estimator]) -> dict[str, Estimator]:
    """Return what computes each method.

    Args:
        given: Names of methods, whose estimators have their default options, or estimators.

    Raises:
        UserError: There is no such method, none at all, or one twice with different options.
    """
    found: dict[str, Estimator] = {}
    for one in [given] if isinstance(given, str) else given:
        if isinstance(one, str):
            if one not in _BY_METHOD:
                raise UserError(f"unknown method {one!r}: choose from {', '.join(_BY_METHOD)}")
            asked = {one: _BY_METHOD[one]()}
        elif isinstance(one, ESTIMATORS):
            asked = dict.fromkeys(one.methods, one)
        else:
            names = ", ".join(estimator.__name__ for estimator in ESTIMATORS)
            raise UserError(
                f"{one!r} is neither the name of a method nor an estimator with its options, an "
                f"object of {names}"
            )
        for method, estimator in asked.items():
            if found.setdefault(method, estimator) != estimator:
                raise UserError(f"{method} is asked for twice, with different options")
    if not found:
        raise UserError(f"no method is asked for: choose from {', '.join(_BY_METHOD)}")
    return found
