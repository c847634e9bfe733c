"""Names, hyper-parameters and paths of the experiments; the only place where they stand.

An experiment is `<model>_<task>_<n>pc[_init|_batch]`, for example `cnn2_mnist3_10pc`: a model, a
task, the number of training samples per class, and what a seed drives. Models and tasks of one's
own are registered by `register_model` and `register_task`. Nothing heavy is imported here, so that
wrong arguments are answered at once.
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
from src.experiments.methods import HELPFUL_SIGN, METHODS, STEPS, script_of
from src.experiments.models import (
    DEFAULT_BACKBONE,
    MODELS,
    TINY_BACKBONE,
    Model,
    register_model,
)
from src.experiments.paths import REPOSITORY, Paths
from src.experiments.tasks import TASKS, Task, register_task

N_SEEDS = 10
SOURCE_VARIABLE = "TDA_DATASETS"  # names the folder of data sets where --source does not

__all__ = [
    "DEFAULT_BACKBONE",
    "HELPFUL_SIGN",
    "METHODS",
    "MODELS",
    "N_SEEDS",
    "RANDOMNESS",
    "REPOSITORY",
    "SOURCE_VARIABLE",
    "STEPS",
    "TASKS",
    "TINY_BACKBONE",
    "Experiment",
    "Hyperparameters",
    "Model",
    "Paths",
    "Task",
    "compared_name",
    "paper_cnn_experiments",
    "paper_vit_experiments",
    "parse_experiment",
    "register_model",
    "register_task",
    "script_of",
]
