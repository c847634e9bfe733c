"""The attribution methods: one registry, from which scripts, reports and figures take theirs.

A further estimator is a module in src/tda and an entry here; nothing else knows it by name. Nothing
heavy is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from src.experiments.subset_kinds import HALF, INDEPENDENT, PERMUTATIONS, SUBSET_KINDS

# What a method needs of a seed: its checkpoints, and
CHECKPOINTS = "checkpoints"  # nothing else;
TRAINING = "training"  # to repeat its training. Else a kind of subsets that models were trained on.


@dataclass(frozen=True)
class Option:
    """An option of an estimator: an argument of the script, and a field of the estimator's class.

    Attributes:
        field: Name of the field. The argument, and the setting in score files, is
            `<method>_<field>`.
        default: Its default: a text of `choices`, or a number, which is above 0 and whole if the
            default is.
        help: What it is, for people.
        choices: What a text may be.
    """

    field: str
    default: str | int | float
    help: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scored:
    """What a draw's cost follows from.

    Attributes:
        n_scored: Number of training samples that are scored.
        n_checkpoints: Number of checkpoints C.
        settings: Of the score files.
    """

    n_scored: int
    n_checkpoints: int
    settings: dict


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
        options: Options of an estimator that `run_estimators.py` computes.
        needs: CHECKPOINTS; TRAINING, unless options say otherwise; or one of SUBSET_KINDS.
        trainings: Returns how many trainings a draw takes, the model's own among them, and every
            derivative that is carried along a training, which takes as much as one or more.
    """

    name: str
    label: str
    helpful_sign: int
    estimator: str
    script: str
    arguments: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    needs: str = CHECKPOINTS
    trainings: Callable[[Scored], int] = lambda scored: 1

    @property
    def subsets(self) -> str | None:
        """The kind of subsets that it is computed from; None: it is not."""
        return self.needs if self.needs in SUBSET_KINDS else None

    @property
    def step(self) -> str:
        """What the launcher calls the computation: the script's name, or the method's."""
        return self.name if self.arguments else self.script.removeprefix("run_").removesuffix(".py")


def _of_paper(
    name: str, label: str, sign: int, estimator: str, script: str, needs: str = CHECKPOINTS
) -> Method:
    return Method(name, label, sign, f"src.tda.{estimator}", script, needs=needs)


def _further(
    name: str, label: str, sign: int, estimator: str, *options: Option, needs: str = CHECKPOINTS
) -> Method:
    call = ("run_estimators.py", ("--method", name))
    trainings = {
        CHECKPOINTS: lambda scored: 1,
        TRAINING: lambda scored: 2,
        # At most: a permutation is left where the rest changes nothing.
        PERMUTATIONS: lambda scored: 1 + scored.settings["n_subsets"] * (scored.n_scored - 1),
    }.get(needs, lambda scored: 1 + scored.settings["n_subsets"])
    return Method(name, label, sign, f"src.tda.{estimator}", *call, options, needs, trainings)


def _of_loo(scored: Scored) -> int:
    # One more member leaves nothing out.
    once = 1 if scored.settings.get("protocol", "retrain") == "retrain" else scored.n_checkpoints
    return 1 + once * (scored.n_scored + 1)


_TRACIN_AT = Option(
    "at",
    "steps",
    "tracin: gradients before each step of the training, or after each of its epochs",
    ("steps", "epochs"),
)
_REPRESENTER_L2 = Option("l2", 3e-3, "representer: L2 penalty of the refitted last layer")
_BIF = (
    Option("chains", 4, "chains of bif"),
    Option("draws", 50, "draws kept of each chain of bif"),
    Option("burn_in", 20, "steps of bif before the first draw"),
    Option("thinning", 2, "steps of bif from a draw to the next"),
    Option("step", 2e-4, "step size of bif's Langevin dynamics"),
    Option("gamma", 1e3, "strength of what holds bif's chains at the trained parameters"),
    Option("batch", 512, "training samples in a step of bif; all where there are no more"),
)

# Those of the paper stand first, everywhere.
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        replace(
            _of_paper("loo", "LOO", 1, "loo:LeaveOneOut", "run_loo.py", TRAINING),
            trainings=_of_loo,
        ),
        _of_paper("ats", "ATS", -1, "ats:AdditionalStep", "run_ats.py"),
        _of_paper("if", "IF", -1, "influence:InfluenceFunction", "run_if.py"),
        _of_paper("gd", "GD", 1, "gradient_similarity:GradientSimilarity", "run_gd_and_gc.py"),
        _of_paper("gc", "GC", 1, "gradient_similarity:GradientSimilarity", "run_gd_and_gc.py"),
        _further("tracin", "TracIn", 1, "tracin:TracIn", _TRACIN_AT, needs=TRAINING),
        replace(
            _further("unrolled", "unrolled", 1, "unrolled:Unrolled", needs=TRAINING),
            trainings=lambda scored: 2 + scored.n_scored,
        ),
        _further(
            "ekfac",
            "EK-FAC",
            -1,
            "ekfac:EkfacInfluence",
            Option("damp", 0.1, "damping of a layer, relative to its mean eigenvalue"),
            Option("draws", 1, "labels drawn from the model of each training sample"),
        ),
        _further(
            "trak",
            "TRAK",
            1,
            "trak:Trak",
            Option("dim", 512, "dimensions that gradients are projected to"),
            Option("damp", 1e-3, "damping, relative to the mean eigenvalue of the kernel"),
        ),
        _further("representer", "RPS", 1, "representer:RepresenterPoints", _REPRESENTER_L2),
        _further("similarity", "similarity", 1, "similarity:NetworkSimilarity"),
        _further("bif", "BIF", 1, "bif:BayesianInfluence", *_BIF),
        _further("downsampling", "downsampling", 1, "downsampling:Downsampling", needs=HALF),
        _further("banzhaf", "Banzhaf", 1, "banzhaf:Banzhaf", needs=INDEPENDENT),
        _further("datamodel", "datamodel", 1, "datamodel:Datamodel", needs=HALF),
        _further("shapley", "Shapley", 1, "shapley:Shapley", needs=PERMUTATIONS),
        # Controls: what reliability alone can and cannot tell.
        _further("inputs", "inputs", 1, "controls:InputSimilarity"),
        _further("noise", "noise", 1, "controls:Noise"),
    )
}
PAPER_METHODS = ("loo", "ats", "if", "gd", "gc")
FURTHER_METHODS = tuple(name for name in METHODS if name not in PAPER_METHODS)
PAPER_STEPS = ("loo", "if", "ats", "gd_and_gc")  # those that take longest first
# The methods of each step of the launcher.
STEPS: dict[str, tuple[str, ...]] = {
    step: tuple(m.name for m in METHODS.values() if m.step == step)
    for step in (*PAPER_STEPS, *FURTHER_METHODS)
}
OPTIONS = {f"{m.name}_{option.field}": option for m in METHODS.values() for option in m.options}


def call_of(method: str) -> tuple[str, ...]:
    """Return the script that computes a method, and the arguments that name it."""
    return (METHODS[method].script, *METHODS[method].arguments)


def in_order(names: Iterable[str]) -> list[str]:
    """Return methods in the registry's order."""
    asked = set(names)
    return [name for name in METHODS if name in asked]
