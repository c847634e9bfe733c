"""The Bayesian influence function against chains that are run in plain loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from src.ensemble.members import PerSampleLoss, state_of
from src.errors import DivergedError
from src.experiments import Paths, parse_experiment
from src.tda.bif import Langevin, _cosines, bayesian_influence, sample_chains
from src.tda.chains import Covariance, effective_sample_size, split_r_hat
from src.tda.score_files import load_scores_of
from tests import reference
from tests.conftest import DIGITS, Case
from tests.models.test_vit import VitCase
from tests.tda.test_any_network import MIXING, NETWORKS, Work
from tests.tools import call, call_well, relative_error, samples

FULL = Langevin(chains=3, draws=4, burn_in=2, thinning=2, step=1e-3, gamma=50.0, batch=100)


def generator() -> torch.Generator:
    """Return a generator that always gives the same."""
    return torch.Generator().manual_seed(5)


@pytest.mark.parametrize("batch", [4, 100])
def test_all_pairs(case: Case, chunk_size: int, batch: int):
    langevin = replace(FULL, batch=batch)
    given = case.checkpoints[-1], case.train, case.train, case.test, langevin
    settings = {"generator": generator(), "chunk_size": chunk_size}
    found, _ = bayesian_influence(case.loss(), *given, **settings)
    naive = reference.bif(case.models[-1], *case.data, case.pairs, generator(), **asdict(langevin))
    # A covariance of losses that hardly vary is a small difference of large numbers.
    tolerance = 1e-6 if case.dtype == torch.float64 else 3e-3
    assert relative_error(found, case.matrix(naive)) < tolerance


@pytest.mark.parametrize("name", ["layer norm", "lstm", "dropout", "transformer", "batch norm"])
@pytest.mark.parametrize("batch", [3, 100])
def test_networks(name: str, batch: int):
    work, langevin = Work(*(NETWORKS | MIXING)[name], torch.float64), replace(FULL, batch=batch)
    model = work.plain[-1].model
    train, test = samples(work.train), samples(work.test)
    scored = train.at(torch.tensor([6, 1]))
    given = state_of(model), train, scored, test, langevin
    found, known = bayesian_influence(work.loss(), *given, generator=generator())
    pairs = [(j, z) for j in (6, 1) for z in range(3)]
    data = work.train[:2], work.test[:2]
    naive = reference.bif(model, *data, pairs, generator(), **asdict(langevin))
    assert relative_error(found, naive.unflatten(0, (2, 3))) < 1e-5
    losses = torch.stack([reference.sample_loss(model, data[0], j).detach() for j in (6, 1)])
    assert known["loss_at_start"].item() == pytest.approx(losses.mean().item())
    assert known["r_hat"].shape == known["effective_sample_size"].shape == (3,)


def test_vit():
    vit = VitCase(torch.float32)
    start = vit.start()
    train, test = vit.samples
    found, known = bayesian_influence(
        vit.loss(), start, train, train, test, FULL, generator=generator()
    )
    assert found.shape == (11, 9)
    assert found.isfinite().all()
    assert known["loss_of_chains"] != known["loss_at_start"]


class Linear(nn.Module):
    def __init__(self, *w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.w


def test_chains_have_the_distribution_they_are_to_have():
    """Of linear losses: a normal around θ − g/γ of variance 1/γ, all but for the step's size."""
    loss = PerSampleLoss(Linear(1.0, -2.0), lambda outputs, _: outputs)
    inputs = torch.tensor([[1.0, 0.0], [1.0, 3.0]], dtype=torch.float64)
    train, params = samples((inputs, torch.zeros(2))), {"w": loss.model.w.detach().clone()}
    langevin = Langevin(20, 400, burn_in=20, thinning=4, step=0.1, gamma=4.0, batch=9)
    chains = sample_chains(loss, params, train, langevin, generator())
    draws = torch.stack([members["w"].clone() for members, _ in chains]).flatten(0, 1)
    assert len(draws) == 20 * 400
    assert draws.mean(0) == pytest.approx(torch.tensor([1.0 - 2 / 4, -2.0 - 3 / 4]), abs=0.03)
    variance = 1 / 4 / (1 - 4.0 * 0.1 / 4)  # of steps that are not infinitesimal
    assert draws.var(0) == pytest.approx(torch.tensor([variance] * 2), rel=0.06)
    assert params["w"].tolist() == [1.0, -2.0]
    found, _ = bayesian_influence(
        loss, params, train, train, train, langevin, generator=generator()
    )
    expected = 2 * variance * inputs @ inputs.T
    assert found.numpy() == pytest.approx(expected.numpy(), rel=0.1)


@pytest.mark.parametrize("remains", [0.9, 0.5, -0.5])
def test_steps_that_go_too_far_are_told(remains):
    """Of two squares, whose sum curves by 5: what is left of the gradient after a step is known."""
    loss = PerSampleLoss(Linear(0.0), lambda outputs, _: outputs**2 / 2)
    train = samples((torch.tensor([[1.0], [2.0]], dtype=torch.float64), torch.zeros(2)))
    step = 2 * (1 - remains) / (5 + 1)
    langevin = Langevin(20, 400, burn_in=20, thinning=3, step=step, gamma=1.0, batch=9)
    _, known = bayesian_influence(
        loss, {"w": torch.zeros(1).double()}, train, train, train, langevin, generator=generator()
    )
    # The sign of two normal numbers of that correlation.
    expected = 2 / np.pi * np.arcsin(remains)
    assert known["gradient_cosine"].item() == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("size", [1e-15, 1.0, 1e15])
def test_cosines_of_small_and_large_gradients(size):
    a, b = ({"w": torch.randn(3, 4, 5), "b": torch.randn(3, 2)} for _ in range(2))
    a["w"][2], a["b"][2] = 0, 0
    scaled = [{name: size * t for name, t in stack.items()} for stack in (a, b)]
    flat = [torch.cat([t.flatten(1) for t in stack.values()], 1).double() for stack in (a, b)]
    found, expected = _cosines(*scaled), nn.functional.cosine_similarity(*flat)
    assert found[:2].numpy() == pytest.approx(expected[:2].numpy(), abs=1e-6)
    assert found[2].isnan()


def test_a_chain_that_diverges():
    case = Case(5, 3)
    given = case.checkpoints[-1], case.train, case.train, case.test
    settings = replace(FULL, step=1e3, gamma=1e3, draws=200)
    with pytest.raises(DivergedError, match="lower --bif_step, or raise --bif_gamma"):
        bayesian_influence(case.loss(), *given, settings, generator=generator())


def test_covariance_of_draws_seen_once():
    a, b = (torch.randn(12, n, dtype=torch.float64) + 1e3 for n in (3, 2))
    covariance = Covariance()
    for rows in (slice(0, 1), slice(1, 5), slice(5, 12)):
        covariance.add(a[rows], b[rows])
    expected = torch.cov(torch.cat([a, b], 1).T)[:3, 3:]
    assert relative_error(covariance.value, expected) < 1e-9


def test_diagnostics():
    noise = torch.randn(4, 2000, 2, dtype=torch.float64)
    trace = noise.clone()
    for t in range(1, 2000):  # autoregressive
        trace[:, t] += 0.8 * trace[:, t - 1]
    expected = 8000 * (1 - 0.8) / (1 + 0.8)
    assert effective_sample_size(trace).numpy() == pytest.approx([expected] * 2, rel=0.25)
    assert effective_sample_size(noise).numpy() == pytest.approx([8000] * 2, rel=0.2)
    assert split_r_hat(noise).numpy() == pytest.approx([1, 1], abs=0.01)
    noise[0, :, 1] += 5  # a chain elsewhere
    assert split_r_hat(noise)[0] < 1.01
    assert split_r_hat(noise)[1] > 1.5
    assert effective_sample_size(noise)[1] < 50
    for function in (split_r_hat, effective_sample_size):
        assert function(noise[:, :3]).isnan().all()


def test_by_the_script(digits_root: Path, copy_of: Callable[[Path], Path]):
    root, experiment = copy_of(digits_root), parse_experiment(DIGITS)
    arguments = ("--root", root, "--experiment", DIGITS, "--train_samples", 4, "--seed_id", 0)
    command = ("run_estimators", *arguments, "--method", "bif", "--bif_draws", 3)
    said = call_well(*command, "--bif_chains", 2)
    assert "along the chains" in said
    assert "of test losses effective sample size" in said
    content = load_scores_of(Paths(root), experiment, "bif", 446, 0)
    assert content["scores"].shape == (5, 4, 300)
    assert content["settings"]["bif_chains"] == 2
    assert content["loss_of_chains"].shape == (5,)
    assert content["r_hat"].shape == (5, 300)
    assert content["gradient_cosine"].shape == (5,)
    overshoot = "steps overshoot, lower --bif_step"
    for step, is_said in ((1e-3, True), (1e-5, False)):
        said = call_well(*command, "--bif_chains", 2, "--overwrite", "--bif_step", step)
        assert (overshoot in said) == is_said
    call_well(*command, "--bif_chains", 2, "--overwrite")
    call(*command).check_refused("bif_chains is 2, now 4")
    call(*command, "--bif_step", 0).check_refused("bif_step")
    one = ("--bif_chains", 1, "--bif_draws", 1, "--overwrite")
    call(*command[:-2], *one).check_refused("bif needs two draws")
