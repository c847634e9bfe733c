"""The report on accuracy: sentences against tables, the script, and what is missing."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from src.analysis.significance import significance_table
from src.analysis.subsets import SubsetLosses
from src.ensemble.draws import load_seeds
from src.experiments import PAPER_METHODS, Paths, parse_experiment
from src.reports.accuracy import report_accuracy
from src.reports.reading import decimals
from src.storage.files import save
from src.tda.timing import record_seconds
from tests.reports.test_readings import KINDS, Collected, made, of, word_of
from tests.tools import call, call_well, save_images, score_content, subsets_content

pytestmark = pytest.mark.filterwarnings("error")

EXPERIMENT = parse_experiment("cnn2_digits3_10pc")
N_TRAIN, N_TEST, N_SUBSETS = 8, 6, 12


def masks(n_train=N_TRAIN, n_subsets=N_SUBSETS):
    rng = np.random.default_rng(9)
    return np.stack([rng.permutation(n_train) < n_train / 2 for _ in range(n_subsets)])


def losses_of(scores, kind):
    """Losses of a kind, of subsets of the samples that scores are of."""
    n_train, n_test = len(scores.train_idx), len(scores.test_idx)
    shape = (scores.n_draws, scores.n_checkpoints, N_SUBSETS, n_test)
    return SubsetLosses(
        masks(n_train),
        KINDS[kind](np.random.default_rng(7), shape).astype(np.float32),
        scores.common_seeds,
        scores.train_idx,
        scores.test_idx,
    )


CASES = [
    *((n, m, "noise") for n in (2, 3, 7) for m in (("gd",), PAPER_METHODS, PAPER_METHODS[1:])),
    *((n, PAPER_METHODS[:3], kind) for n in (3, 7) for kind in KINDS if kind != "noise"),
]


@pytest.mark.parametrize(("n_draws", "methods", "kind"), CASES)
def test_readings(n_draws, methods, kind):
    scores = made(kind, n_draws, methods, (N_TRAIN, N_TEST))
    for kind_of_losses in {"noise", kind}:
        report = Collected()
        summary = report_accuracy(
            report,
            scores,
            losses_of(scores, kind_of_losses),
            dict.fromkeys(scores.scores, np.nan),
            0.05,
        )
        # Names of columns stand between backticks.
        report.readings = {k: (t, r.replace("`", "")) for k, (t, r) in report.readings.items()}
        report.check_words(n_draws)
        table = report.tables["accuracy"]
        values = table.set_index(["statistic", "version", "method"])["value"]
        reading = report.reading("figure", "accuracy_reliability")
        assert f"One draw has {of(summary['draw_other'], decimals)}" in reading
        said = f"the mean of {n_draws // 2} draws {of(summary['mean_other'], decimals)}"
        assert (said in reading) == (n_draws > 3)
        ceiling = values["lds", "ceiling", "losses"]
        assert ("there is nothing to predict" in reading) == np.isnan(ceiling)
        assert np.isnan(ceiling) or f"the dashed line, have {decimals(ceiling)}." in reading
        found = significance_table(scores.samples(), "ttest", 0.05, 0.05)["benjamini_hochberg"]
        pd.testing.assert_series_equal(summary["reliability"], found, check_names=False)
        assert ("loo_of_other" in summary) == ("loo" in methods)
        assert ("LOO is not there" in report.reading("table", "accuracy_by_method")) == (
            "loo" not in methods
        )
        has_limits = table.dropna(subset=["value"])[["low", "high"]].notna().all(axis=1)
        if n_draws == 2:
            assert not has_limits.any()
            assert "2 seeds are too few" in report.reading("table", "accuracy")
        reading = report.reading("figure", "accuracy_by_cost")
        assert ("One draw of LOO takes 10 trainings" in reading) == (set(methods) > {"loo"})
        if set(methods) > {"loo"} and n_draws > 2:
            one = summary.loc["loo", "draw_mean"]
            for method in methods[1:]:
                other = summary.loc[method, "mean_mean"]
                word = word_of(reading.split("Which of them")[1], method)
                assert word == "cannot be told" or (word == "is higher") == (other > one)


def test_a_perfect_method_is_clearly_better_than_one_draw_of_leave_one_out():
    rng = np.random.default_rng(0)
    tau = rng.normal(size=(N_TRAIN, N_TEST))
    scores = made("noise", 7, ("loo", "gd"), (N_TRAIN, N_TEST))
    losses = losses_of(scores, "noise")
    truth = -(losses.masks @ tau) + 0.01 * rng.normal(size=losses.losses.shape)
    report = Collected()
    planted = np.broadcast_to(tau, scores.scores["gd"].shape) + 0.01 * rng.normal(
        size=scores.scores["gd"].shape
    )
    summary = report_accuracy(
        report,
        replace(scores, scores={**scores.scores, "gd": planted}),
        replace(losses, losses=truth),
        {"loo": 1.0, "gd": 1.0},
        0.05,
    )
    assert summary.loc["gd"].min() > 0.95 or summary.loc["gd"].drop("loo_of_other").min() > 0.95
    assert "is higher for GD" in report.reading("figure", "accuracy_by_cost")


def truth_file(of_seed, **changes):
    """Losses on subsets that are the linear datamodel of `score_file`'s scores, with noise."""
    generator = torch.Generator().manual_seed(of_seed)
    of_subsets = -torch.from_numpy(masks()).double() @ tau().double()
    noise = 0.1 * torch.randn(5, N_SUBSETS, N_TEST, generator=generator)
    losses = of_subsets.float() + noise
    return subsets_content(EXPERIMENT.name, of_seed, torch.from_numpy(masks()), losses) | changes


def tau():
    return torch.randn(N_TRAIN, N_TEST, generator=torch.Generator().manual_seed(5))


# IF is given the wrong sign.
SIGNS = {"loo": 1, "ats": -1, "if": 1}


def new_root(folder, n_draws=4):
    paths = Paths(folder)
    for seed in load_seeds(n_draws):
        for method, sign in SIGNS.items():
            noise = torch.randn(5, N_TRAIN, N_TEST, generator=torch.Generator().manual_seed(seed))
            content = score_content(EXPERIMENT.name, method, seed, sign * tau() + 0.1 * noise)
            save(paths.scores(EXPERIMENT, method, seed), content)
            record_seconds(paths, EXPERIMENT, [method], seed, 3.0)
        save(paths.subsets(EXPERIMENT, "truth", seed), truth_file(seed))
    save_images(paths, "train_10pc", N_TRAIN)
    save_images(paths, "test", N_TEST)
    return folder


def arguments(root):
    own = ("--root", root, "--experiment", EXPERIMENT.name, "--seed_id", "0-3")
    return ("run_accuracy", *own, "--methods", *SIGNS)


@pytest.mark.drawn
def test_script_writes_its_part_of_the_page(tmp_path):
    root = new_root(tmp_path)
    out = call_well(*arguments(root))
    folder = Paths(root).results(EXPERIMENT)
    assert "cnn2_digits3_10pc, over 4 seeds" in out
    assert f"{folder / 'index.html'}" in out
    table = pd.read_csv(folder / "accuracy.csv")
    values = table.query("statistic == 'lds'").set_index(["version", "method"])["value"]
    for method, sign in (("loo", 1), ("ats", 1), ("if", -1)):
        for version in ("draw_own", "draw_mean", "mean_mean", "draw_other", "mean_other"):
            assert sign * values[version, method] > 0.9
    by_draws = pd.read_csv(folder / "accuracy_by_draws.csv")
    assert (by_draws["seconds"] == 3 * by_draws["draws_averaged"]).all()
    page = (folder / "index.html").read_text()
    assert "Accuracy beside reliability" in page
    assert "of other scores" not in page
    for name in ("accuracy_reliability", "accuracy_by_cost"):
        for suffix in ("pdf", "png"):
            assert (folder / "figures" / f"{name}.{suffix}").stat().st_size > 1000
    # Beside the other scripts' parts, which are of the same scores.
    call_well("run_correlations", *arguments(root)[1:])
    page = (folder / "index.html").read_text()
    assert page.index("Agreement between methods") < page.index("Accuracy beside reliability")
    assert "of other scores" not in page
    part = json.loads((folder / ".report" / "accuracy.json").read_text())
    assert part["items"][0]["name"] == "accuracy_reliability"


def test_seeds_without_losses_are_left_out_and_said(tmp_path):
    root = new_root(tmp_path)
    Paths(root).subsets(EXPERIMENT, "truth", load_seeds()[1]).unlink()
    assert "over 3 seeds" in call_well(*arguments(root))
    page = (Paths(root).results(EXPERIMENT) / "index.html").read_text()
    assert "Left out: seed_id 1, which not all have scores and losses of." in page
    assert "of other scores" not in page


def test_without_subsets_one_line_says_what_to_run(tmp_path):
    root = new_root(tmp_path)
    for seed in load_seeds(4)[1:]:
        Paths(root).subsets(EXPERIMENT, "truth", seed).unlink()
    call(*arguments(root)).check_refused(
        "are there of 1 of the 4 seeds",
        "(missing: seed_id 1-3)",
        "python run_subsets.py --experiment cnn2_digits3_10pc",
    )
    assert not Paths(root).results(EXPERIMENT).exists()


def test_two_experiments_are_both_checked_before_anything_is_written(tmp_path):
    root = new_root(tmp_path)
    args = (*arguments(root), "--experiment", EXPERIMENT.name, "cnn2_digits3_20pc")
    call(*args).check_refused("cnn2_digits3_20pc")
    assert not Paths(root).results(EXPERIMENT).exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"masks": torch.from_numpy(~masks())}, "has other masks than"),
        ({"epochs": torch.arange(9, 14)}, "the epochs are"),
        ({"seed": 446}, "says that it is"),
        ({"kind": "half"}, "says that it is"),
        ({"losses": torch.full((5, N_SUBSETS, N_TEST), torch.nan)}, "not finite"),
        ({"losses": torch.zeros(5, N_SUBSETS - 1, N_TEST)}, "losses"),
    ],
)
def test_files_that_are_not_sound_are_refused(tmp_path, changes, says):
    root = new_root(tmp_path)
    seed = load_seeds()[2]
    save(Paths(root).subsets(EXPERIMENT, "truth", seed), truth_file(seed, **changes))
    call(*arguments(root)).check_refused(says, "run_subsets.py", "--seed_id 2", "--overwrite")


def test_losses_of_other_samples_are_refused(tmp_path):
    root = new_root(tmp_path)
    for seed in load_seeds(4):
        changed = truth_file(seed, test_idx=torch.arange(N_TEST))
        save(Paths(root).subsets(EXPERIMENT, "truth", seed), changed)
    call(*arguments(root)).check_refused("another test_idx", "run_subsets.py")


def test_scores_of_some_training_samples_predict_no_subset(tmp_path):
    from src.reports.accuracy import with_subsets

    scores = replace(made("noise", 3, ("gd",), (4, 5)), n_scored_of=60)
    with pytest.raises(Exception, match="without --train_samples"):
        with_subsets(Paths(tmp_path), scores)


def test_readings_name_no_method_that_is_not_there():
    scores = made("noise", 7, ("gd", "trak"), (N_TRAIN, N_TEST))
    report = Collected()
    unknown = dict.fromkeys(scores.scores, np.nan)
    report_accuracy(report, scores, losses_of(scores, "noise"), unknown, 0.05)
    for _, reading in report.readings.values():
        assert not re.search(r"\b(ATS|IF|GC)\b", reading)
