"""The attribution methods: their names, what their signs mean, and which script computes them."""

from __future__ import annotations

METHODS = ("loo", "ats", "if", "gd", "gc")
# The sign of a score where the training sample helps, that is, lowers the test sample's loss.
HELPFUL_SIGN = {"loo": 1, "ats": -1, "if": -1, "gd": 1, "gc": 1}
# The methods that each run_<step>.py computes; the ones that take longest stand first.
STEPS = {"loo": ("loo",), "if": ("if",), "ats": ("ats",), "gd_and_gc": ("gd", "gc")}


def script_of(method: str) -> str:
    """Return the name of the script that computes a method."""
    return next(f"run_{step}.py" for step, methods in STEPS.items() if method in methods)
