"""Input similarity against one backward pass for each output of each sample of each pair."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from src.ensemble.members import PerSampleLoss, State, squared_error, state_of
from src.errors import DivergedError
from src.experiments import Paths, parse_experiment
from src.tda.similarity import input_similarity, inverse_square_roots, single_outputs
from tests import reference
from tests.conftest import DIGITS, Case
from tests.models.test_vit import (  # noqa: F401  fixtures for all tests of the module
    VitCase,
    _attention_in_float64,
    _softmax_in_full_precision,
)
from tests.tda.test_any_network import MIXING, N_TEST, N_TRAIN, NETWORKS, Work
from tests.tools import TOLERANCE, call, call_well, relative_error, samples

EXPERIMENT = parse_experiment(DIGITS)


def similarity_of(
    loss: PerSampleLoss, state: State, *splits: tuple[Tensor, Tensor], chunk_size: int = 3
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the scores (n_train, n_test), and what is kept beside them."""
    data = map(samples, splits)
    return input_similarity(single_outputs(loss), state, *data, chunk_size=chunk_size)


@pytest.mark.parametrize(
    "case", [Case(7, 5), Case(1, 3), Case(4, 1), Case(7, 5, torch.float32)], ids=str
)
def test_all_pairs(case: Case):
    model, params = case.models[1], case.checkpoints[1]
    expected = case.matrix(reference.similarity(model, *case.data, case.pairs))
    for chunk_size in (1, 3, 100):
        found, known = similarity_of(case.loss(), params, *case.data, chunk_size=chunk_size)
        assert relative_error(found, expected) < TOLERANCE[case.dtype]
        assert relative_error(known["neighbours"], expected.sum(0)) < TOLERANCE[case.dtype]
        for name, (inputs, _) in (
            ("self_similarity_train", case.data[0]),
            ("self_similarity", case.data[1]),
        ):
            squares = [
                reference.jacobian(model, inputs, i).square().sum() for i in range(len(inputs))
            ]
            assert relative_error(known[name], torch.stack(squares)) < TOLERANCE[case.dtype]


@pytest.mark.parametrize("name", ["layer norm", "lstm", "batch norm", "embedding", "frozen layer"])
def test_other_networks(name: str):
    work = Work(*(NETWORKS | MIXING)[name], torch.float64)
    pairs = [(j, z) for j in range(N_TRAIN) for z in range(N_TEST)]
    expected = reference.similarity(work.plain[-1].model, work.train, work.test, pairs)
    found, _ = similarity_of(work.loss(), work.checkpoints[-1], work.train, work.test)
    assert relative_error(found, expected.reshape(N_TRAIN, N_TEST)) < 1e-9


def test_vit():
    vit = VitCase(torch.float64)
    some = [(inputs[:4], labels[:4]) for inputs, labels in vit.data]
    pairs = [(j, z) for j in range(4) for z in range(4)]
    expected = reference.similarity(vit.models[1], *some, pairs)
    train, test = (split.at(slice(4)) for split in vit.samples)
    found, _ = input_similarity(
        single_outputs(vit.loss()), vit.checkpoints[1], train, test, chunk_size=3
    )
    assert relative_error(found, expected.reshape(4, 4)) < 1e-9


def test_one_output_is_a_cosine_of_gradients():
    """Of values, too: targets do not enter."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    loss = PerSampleLoss(model, squared_error)
    train, test = ((torch.randn(n, 3).double(), torch.randn(n).double()) for n in (5, 4))
    found, _ = similarity_of(loss, state_of(model), train, test)
    sides = [
        torch.cat([reference.jacobian(model, inputs, i) for i in range(len(inputs))])
        for inputs, _ in (train, test)
    ]
    of_train, of_test = (nn.functional.normalize(side) for side in sides)
    assert relative_error(found, of_train @ of_test.T) < 1e-9


def test_a_sample_is_like_itself():
    case = Case(6, 6)
    found, _ = similarity_of(case.loss(), case.checkpoints[0], case.data[0], case.data[0])
    assert found.diagonal().tolist() == pytest.approx([1] * 6)
    assert relative_error(found, found.T) < 1e-9
    assert found.abs().max() < 1 + 1e-9


class Repeated(nn.Module):
    """Four outputs, two of which are always the same, and one never changes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (B, 4)."""
        y = self.layer(x)
        return torch.cat([y, y[:, :1], torch.ones_like(y[:, :1])], 1)


def test_singular_kernels():
    """What is left is a linear network's: an identity times the cosine of the inputs, of rank 2."""
    model = Repeated().double()
    train, test = ((torch.randn(n, 3).double(), torch.zeros(n).long()) for n in (5, 4))
    found, _ = similarity_of(PerSampleLoss(model), state_of(model), train, test)
    of_train, of_test = (
        nn.functional.normalize(nn.functional.pad(x, (0, 1), value=1)) for x, _ in (train, test)
    )
    assert relative_error(found, 2 / 4 * of_train @ of_test.T) < 1e-9
    assert (inverse_square_roots(torch.zeros(2, 3, 3)) == 0).all()


def test_derivatives_that_are_not_finite():
    with pytest.raises(DivergedError, match="not finite"):
        inverse_square_roots(torch.full((1, 2, 2), torch.nan))


def test_by_the_script(digits_root, copy_of: Callable):
    root = copy_of(digits_root)
    arguments = "--root", root, "--experiment", DIGITS, "--method", "similarity"
    out = call_well("run_estimators", *arguments, "--train_samples", 6, "--seed_id", 0)
    assert "neighbours among 6 training samples: median " in out
    path = Paths(root).scores(EXPERIMENT, "similarity", 446)
    content = torch.load(path, weights_only=True)
    assert content["scores"].shape == (5, 6, 300)
    assert content["scores"].abs().max() < 1 + 1e-4
    assert content["neighbours"].shape == content["self_similarity"].shape == (5, 300)
    assert content["self_similarity_train"].shape == (5, 6)
    call("run_estimators", *arguments, "--chunk_size", 0).check_refused("at least 1")
