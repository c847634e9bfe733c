"""Tables and figures of several experiments, on scores with planted differences."""

import numpy as np
import pandas as pd
import pytest
import torch

from src.analysis.stats import pvalues
from src.ensemble.draws import load_seeds
from src.experiments import PAPER_METHODS, Paths, parse_experiment
from src.reports.comparison.correlations import report_correlation_comparison
from src.reports.comparison.pvalues import report_pvalue_comparison
from src.reports.report import Report
from src.reports.scores import load_scores
from src.storage.files import load, save
from tests.tools import call, call_well, save_images, score_content

# Standard deviation over seeds that is planted in each experiment.
NOISE = {
    "cnn2_digits3_10pc": 1.0,
    "cnn2_digits3_10pc_init": 0.8,
    "cnn2_digits3_10pc_batch": 0.1,
    "cnn2_digits3_20pc": 3.0,
    "cnn3_digits3_10pc": 0.5,
}
N_TRAIN, N_TEST = 30, 50


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root with scores of all experiments, and their comparison."""
    root = tmp_path_factory.mktemp("comparison")
    paths = Paths(root)
    rng = np.random.default_rng(0)
    for name, noise in NOISE.items():
        experiment = parse_experiment(name)
        for method in PAPER_METHODS:
            if (name, method) == ("cnn3_digits3_10pc", "ats"):
                continue  # a method that one experiment does not have
            for seed in load_seeds():
                # The same at all checkpoints, so that their mean has the planted noise.
                scores = 0.5 + noise * rng.normal(size=(1, N_TRAIN, N_TEST)).repeat(5, axis=0)
                content = score_content(name, method, seed, torch.from_numpy(scores).float())
                save(paths.scores(experiment, method, seed), content)
    experiments = [parse_experiment(name) for name in NOISE]
    loaded = {e: load_scores(paths, e, allow_missing=True) for e in experiments}
    report = Report(paths.comparison, "Comparison", "pvalues", "Reliability", {})
    report_pvalue_comparison(report, lambda e: loaded[e], experiments, 0.05)
    report.close()
    report = Report(paths.comparison, "Comparison", "correlations", "Agreement", {})
    report_correlation_comparison(report, lambda e: loaded[e], experiments, 0.05)
    report.close()
    return root


def table(root, name, n_labels):
    frame = pd.read_csv(Paths(root).comparison / f"{name}.csv")
    return frame.set_index(list(frame.columns[:n_labels]))


def samples(root, name, method):
    paths, experiment = Paths(root), parse_experiment(name)
    files = [paths.scores(experiment, method, seed) for seed in load_seeds()]
    return np.stack(
        [torch.load(file, weights_only=True)["scores"].double().mean(0).numpy() for file in files]
    )


def key(name):
    experiment = parse_experiment(name)
    randomness = experiment.randomness or "both"
    return experiment.task.name, experiment.model.name, experiment.n_per_class, randomness


def test_a_row_for_each_experiment_with_both_tests(root):
    means = table(root, "mean_pvalues", 4)
    fractions = table(root, "significant_fraction", 4)
    assert list(means.index) == [key(name) for name in NOISE]
    columns = [f"{t}, {m}" for t in ("ttest", "snr") for m in PAPER_METHODS]
    assert list(means.columns) == ["draws", *columns]
    assert (means["draws"] == 10).all()
    for name in ("cnn2_digits3_10pc", "cnn2_digits3_20pc"):
        for test in ("ttest", "snr"):
            p = pvalues(samples(root, name, "if"), test)
            assert means.loc[key(name), f"{test}, if"] == pytest.approx(p.mean())
            assert fractions.loc[key(name), f"{test}, if"] == pytest.approx((p < 0.05).mean())
    assert np.isnan(means.loc[key("cnn3_digits3_10pc"), "ttest, ats"])


def test_intervals_hold_the_means(root):
    means, limits = table(root, "mean_pvalues", 4), table(root, "mean_pvalue_intervals", 5)
    for name in NOISE:
        for method in ("loo", "gc"):
            row = limits.loc[(*key(name), method)]
            for test in ("ttest", "snr"):
                mean = means.loc[key(name), f"{test}, {method}"]
                assert row[f"{test}_low"] <= mean <= row[f"{test}_high"]


def test_markdown_and_latex_come_from_the_same_frame(root):
    folder = Paths(root).comparison
    means = table(root, "mean_pvalues", 4)
    number = f"{means.loc[key('cnn2_digits3_20pc'), 'ttest, loo']:.3f}"
    assert number in (folder / "mean_pvalues.md").read_text()
    latex = (folder / "mean_pvalues.tex").read_text()
    assert number in latex
    assert r"\toprule" in latex


def test_variance_by_source_finds_what_was_planted(root):
    sources = table(root, "sources_of_randomness", 4)
    assert list(sources.index.unique("method")) == list(PAPER_METHODS)
    for _, row in sources.iterrows():
        # 2,000 independent pairs of ten seeds: a standard error of 1 % for each variance.
        assert row["variance_both"] == pytest.approx(1, rel=0.05)
        assert row["init_to_both"] == pytest.approx(0.64, rel=0.07)
        assert row["batch_to_both"] == pytest.approx(0.01, rel=0.07)
        assert row["init_to_both_low"] < row["init_to_both"] < row["init_to_both_high"]


def test_variance_components_lie_between_seeds(root):
    components = table(root, "variance_components", 5)
    # The planted scores are the same at all checkpoints.
    assert (components["residual"] == 0).all()
    loo = components.xs("loo", level="method")["between"]
    assert loo.to_numpy() == pytest.approx([noise**2 for noise in NOISE.values()], rel=0.05)


def test_figures_of_size_complexity_sources_and_correlations(root):
    figures = Paths(root).comparison / "figures"
    assert {path.stem for path in figures.glob("*.png")} == {
        "sources_cnn2_digits3_10pc",
        "size_digits3_cnn2_both",
        "complexity_digits3_10pc_both",
        "correlations",
        "mean_pvalues",
    }


def test_the_page_reads_the_planted_differences(root):
    page = (Paths(root).comparison / "index.html").read_text()
    # More noise with 20 samples per class, less with cnn3, for every method that is there.
    assert "from 10 to 20 samples per class: rises for LOO, ATS, IF, GD and GC." in page
    assert "The model with the largest mean p-value: cnn2 for LOO, IF, GD and GC." in page
    assert "Not all of them have ATS." in page
    assert "cnn3_digits3_10pc lacks ATS." in page
    assert "batch order alone gives LOO 1%" in page
    assert "Which gives more: initialisation for LOO, ATS, IF, GD and GC." in page
    assert "One batch holds all training samples" in page


def test_correlations_of_all_experiments(root):
    correlations = table(root, "correlations", 6)
    # Ten pairs of methods, six where one method is missing.
    assert len(correlations) == 4 * 10 + 6
    assert list(correlations.columns[:3]) == ["draws", "mean, pearson", "mean, spearman"]
    limits = pd.read_csv(Paths(root).comparison / "correlation_intervals.csv")
    assert ((limits["low"] <= limits["value"]) & (limits["value"] <= limits["high"])).all()
    agreement = table(root, "agreement", 5)
    assert len(agreement) == 4 * 4 + 3


@pytest.mark.slow
def test_experiments_of_many_and_few_draws_are_compared_by_the_first_that_all_have(tmp_path):
    """The same scores: 37 seeds of them have smaller p-values than 12."""
    paths, rng = Paths(tmp_path), np.random.default_rng(0)
    names, seeds = ("cnn2_digits3_10pc", "cnn2_digits3_20pc"), load_seeds(37)
    values = torch.from_numpy(0.4 + rng.normal(size=(37, 5, 6, 8))).float()
    for name, n_draws in zip(names, (37, 12), strict=True):
        experiment = parse_experiment(name)
        for seed, scores in zip(seeds[:n_draws], values, strict=False):
            for method in PAPER_METHODS:
                content = score_content(name, method, seed, scores)
                save(paths.scores(experiment, method, seed), content)
        save_images(paths, f"train_{experiment.n_per_class}pc", 6)
    save_images(paths, "test", 8)
    arguments = ("--root", tmp_path, "--experiment", *names, "--seed_id")
    folder = paths.comparison / "+".join(names)
    call("run_pvalues", *arguments, "0-36").check_refused("cnn2_digits3_20pc", "--seed_id 12-36")
    assert not folder.exists()
    for seed_ids, n_draws in (("0-36", 12), ("0-9", 10)):
        p = pvalues(values[:n_draws].double().mean(dim=1).numpy()).mean()
        for script in ("run_pvalues", "run_correlations"):
            call_well(script, *arguments, seed_ids, "--allow_missing")
        means = pd.read_csv(folder / "mean_pvalues.csv")
        assert (means["draws"] == n_draws).all()
        assert means["ttest, loo"].to_numpy() == pytest.approx(p, rel=1e-9)
        assert (pd.read_csv(folder / "size_digits3_cnn2_both.csv")["difference"] == 0).all()
        page = (folder / "index.html").read_text()
        remark = "Compared by the 12 seeds that all have, of cnn2_digits3_10pc 37."
        assert (remark in page) == (n_draws == 12)
        assert f"Mean p-value ({n_draws} seeds)" in page
        assert f"Spearman correlations of the mean scores ({n_draws} seeds)" in page


def test_the_scripts_compare_what_they_are_given(root, tmp_path):
    paths = Paths(tmp_path)
    names = ("cnn2_digits3_10pc", "cnn2_digits3_20pc")
    for name in names:
        experiment = parse_experiment(name)
        for method in ("loo", "gd"):
            for seed in load_seeds()[:3]:
                path = paths.scores(experiment, method, seed)
                whole = load(Paths(root).scores(experiment, method, seed), "")["scores"]
                save(path, score_content(name, method, seed, whole[:, :6, :8]))
        save_images(paths, f"train_{experiment.n_per_class}pc", 6)
    save_images(paths, "test", 8)
    for script in ("run_pvalues", "run_correlations"):
        out = call_well(
            script, "--root", tmp_path, "--allow_missing", "--experiment", *names, names[0]
        )
        folder = paths.comparison / "cnn2_digits3_10pc+cnn2_digits3_20pc"
        assert str(folder / "index.html") in out  # one that is named twice counts once
    # Comparing leaves the single pages alone.
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"comparison"}
    page = (folder / "index.html").read_text()
    assert "<h1>Comparison of cnn2_digits3_10pc and cnn2_digits3_20pc</h1>" in page
    assert "Reliability of the scores" in page
    assert "Agreement between methods" in page


def sampled(root, tmp_path, n_scored):
    """A root with scores of so many of the training samples of each experiment; None: of all."""
    paths = Paths(tmp_path)
    for name, k in n_scored.items():
        experiment = parse_experiment(name)
        for method in ("loo", "gd"):
            for seed in load_seeds()[:3]:
                content = load(Paths(root).scores(experiment, method, seed), "")
                if k is not None:
                    content["scores"] = content["scores"][:, :k].clone()
                    content["train_idx"] = content["train_idx"][:k].clone()
                    sample = {"train_samples_scored": k, "train_samples_all": N_TRAIN}
                    content["settings"] |= sample | {"scored_samples": f"{k} of {name[:12]}"}
                save(paths.scores(experiment, method, seed), content)
    return ("--root", tmp_path, "--allow_missing", "--experiment", *n_scored)


def test_samples_of_the_training_samples(root, tmp_path):
    names = "cnn2_digits3_10pc", "cnn3_digits3_10pc", "cnn2_digits3_20pc"
    for script in ("run_pvalues", "run_correlations"):
        call_well(script, *sampled(root, tmp_path, dict(zip(names, (7, 7, 5), strict=True))))
    (page,) = Paths(tmp_path).comparison.glob("*/index.html")
    text = page.read_text()
    assert "(3 seeds)" not in text
    assert text.count("(3 seeds, random samples of the training samples)") > 20
    assert "intervals from resampled seeds and training samples" in text
    experiments = pd.read_csv(page.with_name("experiments.csv"), index_col="experiment")
    assert experiments["train_samples"].tolist() == [N_TRAIN] * 3
    assert experiments.loc[[*names], "train_samples_scored"].tolist() == [7, 7, 5]


@pytest.mark.parametrize("other", [5, None])
@pytest.mark.parametrize("script", ["run_pvalues", "run_correlations"])
def test_other_numbers_of_the_same_training_samples_are_not_compared(root, tmp_path, script, other):
    given = sampled(root, tmp_path, {"cnn2_digits3_10pc": 7, "cnn3_digits3_10pc": other})
    call(script, *given).check_refused(
        "the scores of cnn2_digits3_10pc are of 7 of 30 training samples of digits3 train_10pc, "
        f"those of cnn3_digits3_10pc of {other or 30} of 30, so the two cannot be compared: score "
        "as many of each, by --train_samples"
    )
    assert not (tmp_path / "results").exists()
