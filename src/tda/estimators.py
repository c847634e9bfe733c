"""The estimators by the methods that they compute; a further one is a module, and an entry here."""

from __future__ import annotations

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


def estimator_of(method: str) -> Estimator:
    """Return the estimator that computes a method, with its default options.

    Raises:
        UserError: There is no such method.
    """
    known = {method: estimator for estimator in ESTIMATORS for method in estimator.methods}
    if method not in known:
        raise UserError(f"unknown method {method!r}: choose from {', '.join(known)}")
    return known[method]()
