"""The linear datamodelling score: a naive loop, planted answers, versions and intervals."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from src.analysis import lds
from src.analysis.lds import agreement_with, datamodelling_scores, rank_agreements
from src.analysis.two_ways import Halves, resamples
from tests import reference


def half_masks(n_subsets, n_train, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(n_train) < n_train / 2 for _ in range(n_subsets)])


def made(n_draws=4, n_train=7, n_test=5, n_subsets=9, seed=0):
    """Scores of GD and IF, masks and losses of noise."""
    rng = np.random.default_rng(seed)
    samples = {m: rng.normal(size=(n_draws, n_train, n_test)) for m in ("gd", "if")}
    masks = half_masks(n_subsets, n_train, seed)
    return samples, masks, rng.normal(size=(n_draws, n_subsets, n_test))


def naive(scores, masks, losses):
    return reference.datamodelling_score(*map(torch.from_numpy, (scores, masks, losses)))


@pytest.mark.parametrize("n_draws", [2, 3, 4, 7])
@pytest.mark.parametrize("shape", [(7, 5, 9), (2, 1, 3), (30, 4, 2)])
@pytest.mark.parametrize("at_once", [1, 2**22])
def test_all_versions_are_those_of_a_loop(monkeypatch, n_draws, shape, at_once):
    monkeypatch.setattr(lds, "_NUMBERS_AT_ONCE", at_once)
    samples, masks, losses = made(n_draws, *shape)
    found = datamodelling_scores(samples, masks, losses)
    halves = Halves.of(n_draws)
    both = [*zip(halves.first, halves.second, strict=True)]
    for method, sign in (("gd", 1), ("if", -1)):
        s = sign * samples[method]
        expected = {
            "draw_own": [naive(s[t], masks, losses[t]) for t in range(n_draws)],
            "draw_mean": [naive(s[t], masks, losses.mean(0)) for t in range(n_draws)],
            "mean_mean": [naive(s.mean(0), masks, losses.mean(0))],
            "draw_other": [naive(s[t], masks, losses[b].mean(0)) for a, b in both for t in a],
            "mean_other": [naive(s[a].mean(0), masks, losses[b].mean(0)) for a, b in both],
        }
        assert found[method].versions.keys() == expected.keys()
        for version, values in expected.items():
            value = found[method].versions[version].value
            assert value == pytest.approx(np.mean(values), abs=1e-9), version
    ceiling = [
        np.mean(
            [
                spearmanr(losses[a, :, z].mean(0), losses[b, :, z].mean(0)).statistic
                for z in range(shape[1])
            ]
        )
        for a, b in both
    ]
    assert found["gd"].ceiling.value == pytest.approx(np.mean(ceiling), abs=1e-9)


def linear(n_draws, n_test=30, n_subsets=60, n_train=20, noise_of_losses=0.0):
    """Scores that are the linear datamodel of the losses, which have noise of their own."""
    rng = np.random.default_rng(1)
    tau = rng.normal(size=(n_train, n_test))
    masks = half_masks(n_subsets, n_train)
    losses = np.repeat(-(masks @ tau)[None], n_draws, axis=0)
    losses += noise_of_losses * rng.normal(size=losses.shape)
    return tau, masks, losses


def test_the_linear_datamodel_itself_has_1_and_with_another_sign_minus_1():
    tau, masks, losses = linear(4)
    samples = {m: np.repeat(tau[None], 4, axis=0) for m in ("gd", "if")}
    found = datamodelling_scores(samples, masks, losses)
    for method, value in (("gd", 1), ("if", -1)):  # a positive score of IF harms
        for version, estimate in found[method].versions.items():
            assert estimate.value == pytest.approx(value), version
    assert found["gd"].ceiling.value == pytest.approx(1)


def test_noise_has_0_and_its_interval_holds_it():
    tau, masks, losses = linear(10)
    samples = {"gd": np.random.default_rng(2).normal(size=(10, *tau.shape))}
    for estimate in datamodelling_scores(samples, masks, losses)["gd"].versions.values():
        low, high = estimate.interval()
        assert low < 0 < high
        assert abs(estimate.value) < 0.1


def test_versions_differ_as_they_should():
    """Scores share with their seed's losses what a training adds, and have noise of their own."""
    rng = np.random.default_rng(3)
    tau, masks, _ = linear(8)
    own = 1.5 * rng.normal(size=(8, *tau.shape))  # what a training adds to scores and losses alike
    losses = -(masks @ (tau + own))
    samples = {"gd": tau + own + 0.5 * rng.normal(size=own.shape)}
    found = {
        k: e.value for k, e in datamodelling_scores(samples, masks, losses)["gd"].versions.items()
    }
    assert found["draw_own"] > found["draw_mean"] + 0.1
    assert found["draw_mean"] > found["draw_other"] + 0.05  # its own losses are among the mean
    assert found["mean_mean"] > found["mean_other"] + 0.05
    assert found["mean_other"] > found["draw_other"] + 0.05


def test_a_test_sample_whose_loss_is_always_the_same_is_left_out():
    samples, masks, losses = made()
    expected = datamodelling_scores(samples, masks, losses)["gd"]
    more = {m: np.concatenate([s, s[..., :1]], axis=-1) for m, s in samples.items()}
    constant = np.concatenate([losses, np.full((*losses.shape[:2], 1), 0.1)], axis=-1)
    found = datamodelling_scores(more, masks, constant)["gd"]
    for version, estimate in expected.versions.items():
        assert found.versions[version].value == pytest.approx(estimate.value), version
        for end, limit in zip(found.versions[version].interval(), estimate.interval(), strict=True):
            assert end == pytest.approx(limit, nan_ok=True), version
    nothing = datamodelling_scores(samples, masks, np.full_like(losses, 0.1))["gd"]
    assert np.isnan([e.value for e in (*nothing.versions.values(), nothing.ceiling)]).all()


@pytest.mark.parametrize("constant", [0.0, 0.1])
def test_scores_that_are_all_alike_rank_nothing(constant):
    """Of subsets of one size; 0.1 ⌊n/2⌋ is not the same for all of them, but for rounding."""
    _, masks, losses = linear(3)
    samples = {"gd": np.full((3, masks.shape[1], losses.shape[2]), constant)}
    found = datamodelling_scores(samples, masks, losses)["gd"]
    assert [e.value for e in found.versions.values()] == [0] * 5


def test_agreement_is_with_the_reference_of_other_seeds():
    rng = np.random.default_rng(4)
    samples = {m: rng.normal(size=(6, 12, 5)) for m in ("loo", "ats")}
    found = agreement_with(samples, "loo")
    halves = Halves.of(6)
    expected = [
        spearmanr(-samples["ats"][a, :, z].mean(0), samples["loo"][b, :, z].mean(0))[0]
        for a, b in zip(halves.first, halves.second, strict=True)
        for z in range(5)
    ]
    assert found["ats"].versions["mean_other"].value == pytest.approx(np.mean(expected), abs=1e-9)
    assert list(found["ats"].versions) == ["draw_other", "mean_other"]
    assert found["loo"].versions["mean_other"].value == pytest.approx(found["loo"].ceiling.value)


def test_halves_have_no_seed_twice_and_use_all_alike():
    for n in (2, 3, 4, 9, 10, 100):
        halves = Halves.of(n)
        both = np.concatenate([halves.first, halves.second], axis=1)
        assert (np.sort(both, axis=1) == np.arange(n)).all()
        assert halves.size == n // 2
        weighting = halves.resampled()
        assert weighting.target.sum(axis=1) == pytest.approx(1)
        assert not (weighting.predicted * weighting.target).any()
        assert len(weighting.target) == len(halves.first) * (101 if n >= 6 else 1)


@pytest.mark.parametrize("n_draws", [3, 5, 20])
def test_resampled_means_have_the_variance_of_a_mean(n_draws):
    values = np.random.default_rng(5).normal(size=(400, n_draws))
    means = values @ resamples(n_draws)[1:].T
    expected = values.var(axis=1, ddof=1) / n_draws
    assert means.var(axis=1, ddof=1).mean() == pytest.approx(expected.mean(), rel=0.15)


def test_too_few_seeds_have_no_intervals():
    for n_draws, whole, split in ((2, False, False), (5, True, False), (6, True, True)):
        samples, masks, losses = made(n_draws)
        found = datamodelling_scores(samples, masks, losses)["gd"]
        for version, estimate in found.versions.items():
            there = split if version.endswith("_other") else whole
            assert np.isfinite(estimate.interval()).all() == there, version
        assert np.isfinite(found.ceiling.interval()).all() == split


def test_intervals_hold_what_endless_seeds_and_test_samples_give():
    """Each of many experiments has its own seeds and test samples; the value of all of them."""
    rng = np.random.default_rng(6)
    n_test, n_subsets, n_draws, held, values = 12, 15, 8, [], []
    estimates = []
    for _ in range(60):
        truth = rng.normal(size=(n_test, n_subsets))
        predicted = truth + 0.7 * rng.normal(size=(n_test, n_subsets))  # of a test sample
        draws = predicted + rng.normal(size=(n_draws, n_test, n_subsets))
        target = truth + rng.normal(size=(n_draws, n_test, n_subsets))
        found = rank_agreements(["x"], lambda _, part, d=draws: d[:, part], target)["x"]
        estimates.append(found.versions)
    for version in estimates[0]:
        values = [own[version].value for own in estimates]
        held = [
            low <= np.mean(values) <= high
            for low, high in (own[version].interval() for own in estimates)
        ]
        assert np.mean(held) >= 0.88, version
        widths = [np.ptp(own[version].interval()) for own in estimates]
        assert np.mean(widths) < 8 * np.std(values), version  # and are not merely wide
