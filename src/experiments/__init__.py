"""Names, hyper-parameters and paths of the experiments; the only place where they stand.

An experiment is `<model>_<task>_<n>pc[_noisy][_init|_batch]`, for example `cnn2_mnist3_10pc`: a
model, a task, the number of training samples per class (or `all` in the place of `<n>pc`, for every
sample of the train split), whether labels are flipped, and what a seed drives. Models and tasks of
one's own are registered by `register_model` and `register_task`. Nothing heavy is imported here, so
that wrong arguments are answered at once.
"""

from src.experiments.experiment import (
    RANDOMNESS,
    Experiment,
    compared_name,
    paper_cnn_experiments,
    paper_vit_experiments,
    parse_experiment,
)
from src.experiments.hyperparameters import Hyperparameters
from src.experiments.methods import (
    FURTHER_METHODS,
    METHODS,
    OPTIONS,
    PAPER_METHODS,
    PAPER_STEPS,
    STEPS,
    Method,
    Scored,
    call_of,
    in_order,
)
from src.experiments.models import (
    DEFAULT_BACKBONE,
    MODELS,
    TINY_BACKBONE,
    Model,
    register_model,
)
from src.experiments.paths import REPOSITORY, Paths
from src.experiments.subset_kinds import (
    FRACTION,
    HALF,
    INCLUSION,
    INDEPENDENT,
    PERMUTATIONS,
    SUBSET_KINDS,
    TRUTH,
)
from src.experiments.tasks import TASKS, Task, register_task

N_SEEDS = 10  # by default, as in the paper
MOST_SEEDS = 10_000  # so that a slip in a range is told, rather than listed number by number
SOURCE_VARIABLE = "TDA_DATASETS"  # names the folder of data sets where --source does not

__all__ = [
    "DEFAULT_BACKBONE",
    "FRACTION",
    "FURTHER_METHODS",
    "HALF",
    "INCLUSION",
    "INDEPENDENT",
    "METHODS",
    "MODELS",
    "MOST_SEEDS",
    "N_SEEDS",
    "OPTIONS",
    "PAPER_METHODS",
    "PAPER_STEPS",
    "PERMUTATIONS",
    "RANDOMNESS",
    "REPOSITORY",
    "SOURCE_VARIABLE",
    "STEPS",
    "SUBSET_KINDS",
    "TASKS",
    "TINY_BACKBONE",
    "TRUTH",
    "Experiment",
    "Hyperparameters",
    "Method",
    "Model",
    "Paths",
    "Scored",
    "Task",
    "call_of",
    "compared_name",
    "in_order",
    "paper_cnn_experiments",
    "paper_vit_experiments",
    "parse_experiment",
    "register_model",
    "register_task",
]
