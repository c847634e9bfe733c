"""The attribution methods: one registry, from which scripts, reports and figures take theirs.

A further estimator is a module in src/tda and an entry here; nothing else knows it by name. Nothing
heavy is imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Method:
    """An attribution method.

    Attributes:
        name: What arguments and files call it.
        label: What figures and sentences call it.
        helpful_sign: Sign of a score where the training sample helps, that is, lowers the test
            sample's loss.
        estimator: What computes it, `module:class`. Methods of one class share their computation.
        script: The script that computes it.
        arguments: Further arguments of the script that name it.
    """

    name: str
    label: str
    helpful_sign: int
    estimator: str
    script: str
    arguments: tuple[str, ...] = field(default=())

    @property
    def step(self) -> str:
        """What the launcher calls the computation: the script's name, or the method's."""
        return self.name if self.arguments else self.script.removeprefix("run_").removesuffix(".py")


def _of_paper(name: str, label: str, sign: int, estimator: str, script: str) -> Method:
    return Method(name, label, sign, f"src.tda.{estimator}", script)


# Those of the paper stand first, everywhere.
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        _of_paper("loo", "LOO", 1, "loo:LeaveOneOut", "run_loo.py"),
        _of_paper("ats", "ATS", -1, "ats:AdditionalStep", "run_ats.py"),
        _of_paper("if", "IF", -1, "influence:InfluenceFunction", "run_if.py"),
        _of_paper("gd", "GD", 1, "gradient_similarity:GradientSimilarity", "run_gd_and_gc.py"),
        _of_paper("gc", "GC", 1, "gradient_similarity:GradientSimilarity", "run_gd_and_gc.py"),
    )
}
PAPER_METHODS = tuple(METHODS)
# The methods of each step of the launcher; the steps that take longest stand first.
STEPS: dict[str, tuple[str, ...]] = {
    step: tuple(m.name for m in METHODS.values() if m.step == step)
    for step in ("loo", "if", "ats", "gd_and_gc")
}
PAPER_STEPS = tuple(STEPS)


def call_of(method: str) -> tuple[str, ...]:
    """Return the script that computes a method, and the arguments that name it."""
    return (METHODS[method].script, *METHODS[method].arguments)


def in_order(names: Iterable[str]) -> list[str]:
    """Return methods in the registry's order."""
    asked = set(names)
    return [name for name in METHODS if name in asked]
