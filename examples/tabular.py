"""Which patients shaped a diagnosis: a table of numbers and a multilayer perceptron.

python run_subset_generation.py --define examples/tabular.py --task tumours
python run_parallel.py --define examples/tabular.py --experiment mlp_tumours_10pc
python run_pvalues.py --define examples/tabular.py --experiment mlp_tumours_10pc
"""

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn

from src.experiments import register_model, register_task

TABLE = load_breast_cancer()  # 569 patients, 30 measurements, benign or malignant


def load() -> dict:
    rows = torch.from_numpy(TABLE.data).float()
    rows = (rows - rows.mean(0)) / rows.std(0)
    return {"pool": (rows, torch.from_numpy(TABLE.target))}


def perceptron(task):
    return nn.Sequential(
        nn.Linear(task.input_shape[0], 32),
        nn.LayerNorm(32),
        nn.GELU(),
        nn.Linear(32, task.n_classes),
    )


register_task(
    "tumours",
    load,
    n_per_class=(10, 20),
    n_test_per_class=40,
    epochs=20,
    class_names=tuple(TABLE.target_names),
    feature_names=tuple(TABLE.feature_names),
)
register_model("mlp", perceptron, learning_rate=3e-3)
