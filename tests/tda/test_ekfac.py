"""EK-FAC against dense blocks that are made of one sample at a time."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.ensemble.members import PerSampleLoss, squared_error, state_of, trainable
from src.errors import UserError
from src.experiments import Paths, parse_experiment
from src.kernels.fuse import fuse
from src.models.cnn import CNN2
from src.storage.files import load
from src.tda.ekfac import describe, draw_targets, ekfac_influence
from src.tda.kronecker import KroneckerBasis, fit_ekfac
from src.tda.score_files import score_command
from tests import reference
from tests.conftest import DIGITS, Case
from tests.models.test_vit import VitCase
from tests.tda.test_any_network import MIXING, NETWORKS, Work
from tests.tools import TOLERANCE, call, call_well, relative_error, samples

N_DRAWS = 3


def drawn_at(loss: PerSampleLoss, checkpoint: dict, train, n_draws: int = N_DRAWS) -> list:  # noqa: ANN001
    """Return the training samples with drawn targets."""
    return draw_targets(loss, checkpoint, train, n_draws, torch.Generator().manual_seed(5))


def as_data(drawn: list, inputs: Tensor) -> reference.Data:
    """Return all drawn samples as the naive version takes them."""
    return inputs.repeat(len(drawn), *(1,) * (inputs.ndim - 1)), torch.cat(
        [s.labels for s in drawn]
    )


@functools.cache
def expected_scores(case: Case) -> Tensor:
    """Return the naive scores (n_pairs,), once per case."""
    drawn = drawn_at(case.loss(), case.checkpoints[-1], case.train)
    data = as_data(drawn, case.data[0][0])
    return reference.influence_ekfac(case.models[-1], *case.data, case.pairs, data)


def test_all_pairs(case: Case, chunk_size: int):
    loss, checkpoint = case.loss(), case.checkpoints[-1]
    loss.model.train()  # it is computed in eval mode all the same
    drawn = drawn_at(loss, checkpoint, case.train)
    given = loss, checkpoint, drawn, case.train, case.test
    found, damping = ekfac_influence(*given, damp=0.1, chunk_size=chunk_size)
    assert list(damping) == ["conv1", "conv2", "fc1", "fc2"]
    assert relative_error(found, case.matrix(expected_scores(case))) < TOLERANCE[case.dtype]


@pytest.mark.parametrize(
    "name",
    [
        *("mlp", "layer norm", "strided convolution", "group norm", "own parameter"),
        *("embedding", "attention", "lstm", "frozen layer"),
    ],
)
def test_networks(name: str):
    """Layers in the Kronecker basis, and the diagonal of all else."""
    work = Work(*NETWORKS[name], torch.float64)
    check_network(work)


def test_network_with_running_statistics():
    check_network(Work(*MIXING["batch norm"], torch.float64))


def check_network(work: Work) -> None:
    loss, state, model = work.loss(), work.checkpoints[-1], work.plain[-1].model
    train, test = samples(work.train), samples(work.test)
    drawn = drawn_at(loss, state, train)
    found, _ = ekfac_influence(loss, state, drawn, train, test, damp=0.1, chunk_size=3)
    pairs = [(j, z) for j in range(len(train)) for z in range(len(test))]
    expected = reference.influence_ekfac(
        model, work.train, work.test, pairs, as_data(drawn, work.train[0])
    )
    assert relative_error(found, expected.reshape(found.shape)) < 1e-9


def test_all_positions_count_where_layers_are_fused():
    """Those that no window of a pooling reaches have inputs, too, though no gradients."""
    torch.manual_seed(0)
    model = CNN2((1, 28, 28), 10)  # its second map is 11 x 11, and the first is fused to 24 x 24
    data = samples((torch.rand(6, 1, 28, 28), torch.arange(6)))
    found = []
    for network in (model, fuse(copy.deepcopy(model))):
        given = PerSampleLoss(network), trainable(network), [data], data, data
        found.append(ekfac_influence(*given, damp=0.1, chunk_size=4)[0])
    assert relative_error(found[1], found[0]) < 1e-3


def test_vit():
    """LoRA's matrices and the head are linear layers: nothing is left to the diagonal."""
    vit = VitCase(torch.float32)
    loss, params, (train, test) = vit.loss(), vit.checkpoints[1], vit.samples
    drawn = drawn_at(loss, params, train, 1)
    ekfac = fit_ekfac(loss, params, drawn, damp=0.1, batch_size=4)
    assert all(isinstance(basis, KroneckerBasis) for basis in ekfac.bases.values())
    assert sum("lora_" in layer for layer in ekfac.bases) == len(ekfac.bases) - 1
    found, _ = ekfac_influence(loss, params, drawn, train, test, damp=0.1, chunk_size=4)
    data = as_data(drawn, vit.data[0][0])
    expected = reference.influence_ekfac(vit.models[1], *vit.data, vit.pairs, data)
    assert relative_error(found, vit.matrix(expected)) < 1e-4


def test_a_layer_without_gradients_has_no_part():
    """As LoRA's first matrix has none while the second is zero."""
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3, bias=False)).double()
    nn.init.zeros_(model[1].weight)
    loss, data = PerSampleLoss(model), samples((torch.randn(5, 6).double(), torch.arange(5) % 3))
    drawn = drawn_at(loss, state_of(model), data)
    ekfac = fit_ekfac(loss, trainable(model), drawn, damp=0.1, batch_size=2)
    assert {name: d > 0 for name, d in ekfac.damping.items()} == {"0": False, "1": True}
    solved = ekfac.solve(torch.ones(1, 40).double())
    assert not solved[:, :28].any()
    assert solved[:, 28:].all()


def test_the_whole_matrix_where_one_linear_layer_has_one_output():
    """Then b is a number: of values G is, up to what is drawn, the Hessian, which is known."""
    torch.manual_seed(0)
    model = nn.Linear(5, 1).double()
    loss = PerSampleLoss(model, squared_error)
    data = samples((torch.randn(9, 5).double(), torch.randn(9, 1).double()))
    drawn = drawn_at(loss, state_of(model), data, 500)
    ekfac = fit_ekfac(loss, trainable(model), drawn, damp=1e-3, batch_size=4)
    a = torch.cat([data.images, torch.ones(9, 1).double()], 1)
    matrix = 2 * a.T @ a / 9  # the Hessian of the mean squared error
    damped = matrix + 1e-3 * matrix.trace() / 6 * torch.eye(6).double()
    assert relative_error(ekfac.solve(damped), torch.eye(6).double()) < 0.1


def test_drawn_targets_have_the_gauss_newton_matrix():
    """Of labels and of values: the mean of g gᵀ over many draws."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    x, n = torch.randn(2, 3).double(), 20000
    for criterion, targets in (
        (None, torch.tensor([0, 1])),
        (squared_error, torch.randn(2, 2).double()),
    ):
        loss = PerSampleLoss(model, criterion) if criterion else PerSampleLoss(model)
        drawn = drawn_at(loss, state_of(model), samples((x, targets)), n)
        at = model(x).detach()
        for i in range(2):
            rows = at[i].expand(n, -1).clone().requires_grad_()
            labels = torch.stack([s.labels[i] for s in drawn])
            (b,) = torch.autograd.grad(loss.criterion(rows, labels).sum(), rows)
            p = at[i].softmax(0)
            expected = (torch.diag(p) - torch.outer(p, p)) if not criterion else torch.eye(2)
            assert relative_error(b.T @ b / n, expected.to(b)) < 0.05


def test_draws_are_the_seeds():
    case = Case(11, 2)
    loss, checkpoint = case.loss(), case.checkpoints[-1]

    def labels(seed: int, n: int = 4) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.stack(
            [s.labels for s in draw_targets(loss, checkpoint, case.train, n, generator)]
        )

    state = torch.get_rng_state()
    assert labels(1).equal(labels(1))
    assert not labels(1).equal(labels(2))
    assert torch.get_rng_state().equal(state)
    assert labels(1).dtype == torch.int64


def test_a_criterion_of_ones_own_is_refused():
    model = nn.Linear(3, 2)
    loss = PerSampleLoss(model, lambda o, y: F.cross_entropy(o, y, reduction="none"))
    data = samples((torch.randn(4, 3), torch.tensor([0, 1, 0, 1])))
    with pytest.raises(UserError, match="cross-entropy or the squared error") as refused:
        drawn_at(loss, state_of(model), data)
    assert "\n" not in str(refused.value)


def test_what_is_said_of_many_layers():
    few = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([4.0, 4.0])}
    assert describe(few) == "damping a 2, b 4"
    many = {f"l{i}": torch.tensor([float(i)]) for i in range(9)}
    assert describe(many).endswith("of 9 layers, smallest, median and largest: l0 0, l4 4, l8 8")


def test_by_the_script(digits_root: Path, copy_of: Callable[[Path], Path]):
    root, experiment = copy_of(digits_root), parse_experiment(DIGITS)
    given = ("run_estimators", "--root", root, "--experiment", DIGITS, "--seed_id", 0)
    ekfac = (*given, "--method", "ekfac", "--train_samples", 4)
    out = call_well(*ekfac)
    assert all(f"{layer} " in out for layer in ("damping conv1", "conv2", "fc1", "fc2"))
    assert "finished before" in call_well(*ekfac)
    content = load(Paths(root).scores(experiment, "ekfac", 446), "")
    assert content["scores"].shape == (5, 4, 300)
    assert content["damping_conv1"].shape == (5,)
    assert (content["damping_fc2"] > 0).all()
    command = score_command(Paths(root), experiment, "ekfac", 0, content["settings"])
    assert "--method ekfac" in command
    assert "--ekfac_damp 0.1 --ekfac_draws 1" in command
    call(*ekfac, "--ekfac_damp", 0.2).check_refused("ekfac_damp is 0.1, now 0.2")
    call(*ekfac, "--ekfac_damp", 0).check_refused("'0' is not a number above 0")
    call(*given, "--method", "noise", "--ekfac_damp", 1).check_refused("without --method ekfac")
