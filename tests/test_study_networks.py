"""A study of networks of all kinds, all methods, against plain models and a pair at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from src.ensemble.draws import load_seeds
from src.study import Study
from tests import reference
from tests.tda.test_any_network import BATCH_SIZE, MIXING, N_EPOCHS, NETWORKS, Work
from tests.tools import TOLERANCE, relative_error

# One of each kind; the others differ in what the estimators do of them, not in what a study does.
KINDS = (
    *("logistic regression", "mlp", "strided convolution", "padding same", "group norm"),
    *("layer norm", "embedding", "own parameter", "called twice", "lstm", "frozen layer"),
    *("transformer with dropout", "batch norm", "batch norm and dropout"),
)


# The others have naive versions of their own in the tests of each method.
IN_EVERY_RUN = ("strided convolution", "embedding", "lstm", "batch norm and dropout")


@pytest.mark.parametrize(
    "name",
    [pytest.param(k, marks=[] if k in IN_EVERY_RUN else [pytest.mark.slow]) for k in KINDS],
)
def test_study_of_any_network(name: str):
    work = Work(*(NETWORKS | MIXING)[name], torch.float32)
    study = Study(
        work.build,
        work.train,
        work.test,
        epochs=N_EPOCHS,
        n_checkpoints=N_EPOCHS,
        batch_size=BATCH_SIZE,
        learning_rate=reference.LEARNING_RATE,
        weight_decay=reference.WEIGHT_DECAY,
    )
    found = study.scores(n_seeds=1)
    seed = load_seeds()[0]
    n_train, n_test = found["loo"].shape[2:]
    pairs = [(j, z) for j in range(n_train) for z in range(n_test)]

    def check(method: str, expected: Tensor) -> None:
        scores = torch.from_numpy(found[method])[0]
        expected = expected.unflatten(1, (n_train, n_test))
        assert relative_error(scores, expected) < TOLERANCE[torch.float32]

    check(
        "loo",
        reference.loo(
            work.build,
            work.train,
            work.test,
            pairs,
            seed,
            N_EPOCHS,
            [*range(N_EPOCHS)],
            BATCH_SIZE,
            taken_out=name in MIXING,
        ),
    )
    models = [
        epoch.model for epoch in reference.train(work.build, work.train, seed, N_EPOCHS, BATCH_SIZE)
    ]
    naive = {
        "ats": reference.ats,
        "if": reference.influence_lissa,
        "gd": reference.grad_dot,
        "gc": reference.grad_cos,
    }
    for method, function in naive.items():
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            expected = [function(model, work.train, work.test, pairs) for model in models]
        check(method, torch.stack(expected))
