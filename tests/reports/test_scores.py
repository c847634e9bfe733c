"""Loading the scores of all seeds, and the tables, figures and scripts made of them."""

import re
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr, ttest_1samp

from src.analysis.stats import pvalues
from src.ensemble.draws import load_seeds
from src.errors import UserError
from src.experiments import PAPER_METHODS, Paths, parse_experiment
from src.reports.pvalues import pvalue_tables
from src.reports.reading import reading_of_left_out
from src.reports.scores import load_scores
from src.storage.files import load, save
from src.tda.score_files import load_scores_of
from tests.tools import call, call_well, save_images, score_content

EXPERIMENT = parse_experiment("cnn2_digits3_10pc")
N_TRAIN, N_TEST = 6, 8


def score_file(method, seed, **changes):
    generator = torch.Generator().manual_seed(seed * 10 + PAPER_METHODS.index(method))
    pair = torch.arange(N_TRAIN * N_TEST).reshape(N_TRAIN, N_TEST) / 10
    noise = torch.randn(5, N_TRAIN, N_TEST, generator=generator)
    return score_content(EXPERIMENT.name, method, seed, pair + noise) | changes


def new_root(folder, n_draws=10):
    """A root folder with scores of all methods and seeds, and images of the pairs."""
    paths = Paths(folder)
    for seed in load_seeds(n_draws):
        for method in PAPER_METHODS:
            save(paths.scores(EXPERIMENT, method, seed), score_file(method, seed))
    save_images(paths, "train_10pc", N_TRAIN)
    save_images(paths, "test", N_TEST)
    return folder


@pytest.fixture
def root(tmp_path):
    return new_root(tmp_path)


@pytest.fixture(scope="module")
def page(tmp_path_factory, drawn):
    """The folder of the page that both scripts wrote, and what each of them printed."""
    root = new_root(tmp_path_factory.mktemp("page"))
    arguments = ("--root", root, "--experiment", EXPERIMENT.name)
    printed = {
        "correlations": call_well("run_correlations", *arguments),
        "ttest": call_well("run_pvalues", *arguments, "--test_index", 103),
        "snr": call_well("run_pvalues", *arguments, "--test", "snr"),
    }
    return Paths(root).results(EXPERIMENT), printed


def scores_path(root, method, seed_id):
    return Paths(root).scores(EXPERIMENT, method, load_seeds()[seed_id])


def test_load_scores_stacks_seeds_in_order(root):
    scores = load_scores(Paths(root), EXPERIMENT, allow_missing=False)
    assert list(scores.scores) == list(PAPER_METHODS)
    for method in PAPER_METHODS:
        assert scores.seeds[method] == load_seeds()
        for t, seed in enumerate(load_seeds()):
            expected = score_file(method, seed)["scores"].numpy()
            np.testing.assert_array_equal(scores.scores[method][t], expected)


@pytest.mark.parametrize(
    "n_draws", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (10, 37, 100))]
)
def test_scripts_take_any_number_of_draws(tmp_path, n_draws):
    """All that is written rests on the draws that were asked for, and says how many."""
    root, seeds = new_root(tmp_path, n_draws + 2), load_seeds(n_draws + 1)[1:]
    arguments = ("--root", root, "--experiment", EXPERIMENT.name, "--seed_id", f"1-{n_draws}")
    assert f", ttest over {n_draws} seeds" in call_well("run_pvalues", *arguments)
    assert f", over {n_draws} seeds" in call_well("run_correlations", *arguments)
    folder = Paths(root).results(EXPERIMENT)
    samples = {
        m: torch.stack([score_file(m, seed)["scores"].double().mean(0) for seed in seeds]).numpy()
        for m in PAPER_METHODS
    }
    p = {m: ttest_1samp(own, 0).pvalue for m, own in samples.items()}
    means = pd.read_csv(folder / "mean_pvalues.csv", index_col=0)
    assert (means["draws"] == n_draws).all()
    for method in PAPER_METHODS:
        assert means.loc[5, method] == pytest.approx(p[method].mean(), rel=1e-9)
    labels = ["statistic", "coefficient", "method_a", "method_b"]
    correlations = pd.read_csv(folder / "correlations.csv", index_col=labels)["value"]
    of_means = (samples[m].mean(axis=0).ravel() for m in ("if", "gc"))
    for statistic, values in (("mean", of_means), ("pvalue", (p[m].ravel() for m in ("if", "gc")))):
        found = correlations[statistic, "spearman", "if", "gc"]
        assert found == pytest.approx(spearmanr(*values).statistic, rel=1e-9)
    stability = pd.read_csv(folder / "stability.csv")
    assert stability["draws"].max() == n_draws
    last = stability.query(f"method == 'gd' and draws == {n_draws} and checkpoints == 5")
    assert last["mean_pvalue"].item() == pytest.approx(p["gd"].mean(), rel=1e-9)
    page = (folder / "index.html").read_text()
    for title in re.findall(r"<h3 id[^>]*>(.*?)</h3>", page):
        facts = {"Experiment", "Accuracy and loss of the models"}
        assert title in facts or f"({n_draws} seeds)" in title, title
    assert f"{n_draws} (seed_id 1-{n_draws}): {seeds[0]}, {seeds[1]}" in page


def test_no_more_is_held_than_what_is_compared(root, monkeypatch):
    """Of each method's files, those of common seeds alone, and while that method is stacked."""
    for seed_id in range(3):
        scores_path(root, "gd", seed_id).unlink()
    read, loaded = load_scores_of, []

    def load_one(paths, experiment, method, seed, *args):
        held = [own for own in loaded if own() is not None]
        assert len(held) <= 7, "files of a method that was stacked are still held"
        content = read(paths, experiment, method, seed, *args)
        loaded.append(weakref.ref(content["scores"]))
        return content

    monkeypatch.setattr("src.reports.scores.load_scores_of", load_one)
    scores = load_scores(Paths(root), EXPERIMENT, allow_missing=True)
    assert len(loaded) == 5 * 7
    assert [own for own in loaded if own() is not None] == []
    assert scores.common_seeds == load_seeds()[3:]
    assert scores.unused == {m: load_seeds()[:3] for m in PAPER_METHODS if m != "gd"}


def test_missing_scores_of_many_seeds_are_listed_as_ranges(root):
    arguments = ("--root", root, "--experiment", EXPERIMENT.name, "--seed_id", "2-5,9-99")
    scores_path(root, "ats", 3).unlink()
    for script in ("run_pvalues", "run_correlations"):
        command = f"python run_{{}}.py --experiment cnn2_digits3_10pc --seed_id {{}} --root {root}"
        # There are no checkpoints here.
        train = command.format("cnn_training", "3,10-99")
        loo, ats = command.format("loo", "10-99"), command.format("ats", "3,10-99")
        call(script, *arguments).check_refused(
            "loo of seed_id 10-99; ats of seed_id 3,10-99; if of seed_id 10-99;",
            f"Make them with: {train} && {loo} && {ats} && ",
            "--allow_missing",
        )
    assert not Paths(root).results(EXPERIMENT).exists()
    out = call_well("run_correlations", *arguments, "--allow_missing")
    assert "over 4 seeds, those that all have; left out: 1 of loo, 1 of if, 1 of gd" in out


def test_missing_scores_are_listed_with_their_commands(root):
    scores_path(root, "loo", 3).unlink()
    scores_path(root, "gd", 7).unlink()
    scores_path(root, "gc", 7).unlink()
    for seed_id in range(10):
        scores_path(root, "if", seed_id).unlink()
    with pytest.raises(UserError) as caught:
        load_scores(Paths(root), EXPERIMENT, allow_missing=False)
    message = str(caught.value)
    assert "loo of seed_id 3; if of all seeds; gd of seed_id 7; gc of seed_id 7" in message
    assert (
        f"python run_cnn_training.py --experiment cnn2_digits3_10pc --root {root}"
        f" && python run_loo.py --experiment cnn2_digits3_10pc --seed_id 3 --root {root}"
        f" && python run_if.py --experiment cnn2_digits3_10pc --root {root}"
        f" && python run_gd_and_gc.py --experiment cnn2_digits3_10pc --seed_id 7 --root {root} ("
        in message
    )


def test_what_is_trained_is_not_trained_again(root):
    scores_path(root, "loo", 3).unlink()
    for epoch in EXPERIMENT.kept_epochs:
        path = Paths(root).checkpoint(EXPERIMENT, load_seeds()[3], epoch)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with pytest.raises(UserError, match=r"Make them with: python run_loo\.py \S+ \S+ --seed_id 3 "):
        load_scores(Paths(root), EXPERIMENT, allow_missing=False)


def test_a_further_method_that_lacks_a_seed_is_missing(root):
    for seed in load_seeds()[:9]:
        content = score_file("gd", seed)
        content["method"] = "trak"
        save(Paths(root).scores(EXPERIMENT, "trak", seed), content)
    scores = load_scores(Paths(root), EXPERIMENT, allow_missing=False)
    assert list(scores.scores) == list(PAPER_METHODS)
    assert scores.missing == ["trak"]
    assert scores.draws == "10 seeds; not shown, since others are missing: 9 of trak"
    assert reading_of_left_out(scores) == (
        "Not shown, since scores of other seeds are missing: TRAK (9 seeds)."
    )
    asked = load_scores(Paths(root), EXPERIMENT, allow_missing=True, methods=["gd", "trak"])
    assert asked.missing == []
    assert reading_of_left_out(asked).endswith("left out: 1 seed of GD.")


def test_allow_missing_goes_on_with_two_seeds_at_least(root):
    for seed_id in range(8):
        scores_path(root, "ats", seed_id).unlink()
    for seed_id in range(9):
        scores_path(root, "if", seed_id).unlink()
    scores = load_scores(Paths(root), EXPERIMENT, allow_missing=True)
    assert list(scores.scores) == ["loo", "ats", "gd", "gc"]
    # All methods are compared by the seeds that all of them have.
    assert all(seeds == load_seeds()[8:] for seeds in scores.seeds.values())
    others = {m: load_seeds()[:8] for m in ("loo", "gd", "gc")}
    assert scores.unused == {**others, "if": load_seeds()[9:]}
    for t, seed in enumerate(load_seeds()[8:]):
        expected = score_file("loo", seed)["scores"].numpy()
        np.testing.assert_array_equal(scores.scores["loo"][t], expected)
    assert (
        scores.draws == "2 seeds, those that all have; left out: 8 of loo, 8 of gd, 8 of gc; "
        "not shown, since others are missing: 1 of if"
    )


def test_a_method_that_shares_no_two_seeds_is_left_out(root):
    for seed_id in range(10):
        scores_path(root, "ats" if seed_id > 2 else "if", seed_id).unlink()
    scores = load_scores(Paths(root), EXPERIMENT, allow_missing=True)
    assert list(scores.scores) == ["loo", "if", "gd", "gc"]
    assert scores.common_seeds == load_seeds()[3:]
    assert scores.unused["ats"] == load_seeds()[:3]
    assert scores.settings()["seeds left out"] == scores.unused


def test_allow_missing_with_one_seed_is_an_error(tmp_path):
    save(scores_path(tmp_path, "loo", 0), score_file("loo", load_seeds()[0]))
    with pytest.raises(UserError, match="no method has scores of two seeds"):
        load_scores(Paths(tmp_path), EXPERIMENT, allow_missing=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_idx": torch.arange(N_TRAIN) + 1}, "another train_idx"),
        ({"train_samples": "of another source"}, "another train_samples"),
        ({"test_samples": "of another source"}, "another test_samples"),
        ({"checkpoints": "of others"}, "other checkpoints than .*/loo/854.pt: make both again"),
        ({"damp": 1}, "not computed alike: damp is 1"),
    ],
)
def test_scores_that_do_not_belong_together(root, changes, message):
    content = score_file("if", 854)
    if "train_idx" not in changes:
        changes = {"settings": content["settings"] | changes}
    save(scores_path(root, "if", load_seeds().index(854)), content | changes)
    again = f"python run_if.py --experiment {EXPERIMENT.name} --seed_id 4( --damp 1)? --root {root}"
    with pytest.raises(UserError, match=f"{message}.*{again} --overwrite$"):
        load_scores(Paths(root), EXPERIMENT, allow_missing=False)


@pytest.mark.parametrize("script", ["run_pvalues", "run_correlations"])
def test_files_are_read_once(root, script, monkeypatch):
    read = []

    def load_one(*args):
        read.append(args[2:4])
        return load_scores_of(*args)

    monkeypatch.setattr("src.reports.scores.load_scores_of", load_one)
    call_well(script, "--root", root, "--experiment", EXPERIMENT.name)
    assert len(read) == len(set(read)) == 5 * 10


def test_pvalue_tables_have_a_row_per_number_of_checkpoints(root):
    scores = load_scores(Paths(root), EXPERIMENT, allow_missing=False)
    means, fractions, p = pvalue_tables(scores, "ttest", 0.05)
    assert list(means) == list(fractions.index) == [1, 2, 3, 4, 5]
    for k in means:
        for method in PAPER_METHODS:
            expected = pvalues(scores.scores[method][:, -k:].mean(1, dtype=np.float64))
            assert means[k][method].value == pytest.approx(expected.mean())
            assert fractions.loc[k, method] == pytest.approx((expected < 0.05).mean())
    np.testing.assert_allclose(p["loo"], expected_at_all_checkpoints(scores, "loo"))


def expected_at_all_checkpoints(scores, method):
    return pvalues(scores.scores[method].mean(1, dtype=np.float64))


@pytest.mark.parametrize("test", ["ttest", "snr"])
def test_run_pvalues_writes_tables_and_figures(page, test):
    folder, printed = page
    suffix = "" if test == "ttest" else "_snr"
    table = pd.read_csv(folder / f"mean_pvalues{suffix}.csv", index_col="checkpoints")
    assert list(table.columns) == ["draws", *PAPER_METHODS]
    assert (table["draws"] == 10).all()
    assert list(table.index) == [1, 2, 3, 4, 5]
    content = load(folder / f"pvalues{suffix}.pt", make="")
    for method in PAPER_METHODS:
        assert content[method].shape == content["mean"][method].shape == (N_TRAIN, N_TEST)
        assert content[method].mean().item() == pytest.approx(table.loc[5, method])
        scores = torch.stack([score_file(method, seed)["scores"] for seed in load_seeds()])
        torch.testing.assert_close(content["std"][method].float(), scores.mean(1).std(0))
    for name in (
        "pvalue_histograms",
        "mean_pvalue_by_checkpoints",
        "mean_against_std",
        *(f"{method}_pairs" for method in PAPER_METHODS),
    ):
        for ending in ("pdf", "png"):
            assert (folder / "figures" / f"{name}{suffix}.{ending}").stat().st_size > 1000
    assert "mean p-value" in printed[test]
    assert "pairs are shown without predictions" in printed[test]  # no checkpoints here
    limits = pd.read_csv(folder / f"mean_pvalue_intervals{suffix}.csv", index_col="checkpoints")
    assert (limits["loo, low"] < table["loo"]).all()
    assert (limits["loo, high"] > table["loo"]).all()
    fractions = pd.read_csv(folder / f"significance{suffix}.csv", index_col="method")
    if test == "ttest":
        assert (fractions["benjamini_hochberg"] <= fractions["significant"]).all()
    else:  # no p-values, and no tests that need them
        assert list(fractions.columns) == ["pairs", "draws", "expected_of_noise", "below_alpha"]
    html = (folder / "index.html").read_text()
    part = html.split(f'<section aria-labelledby="pvalues{suffix}">')[1].split("</section>")[0]
    assert "pure noise would give" in part
    assert ("Seeds for 80% power" in part) == (test == "ttest")
    assert "torch 2 (cpu)" in html
    assert "learning_rate 0.001" in html


def test_run_pvalues_draws_the_influences_on_a_test_sample(page):
    folder, _ = page
    assert (folder / "figures" / "influences_103.png").stat().st_size > 1000
    assert "Proponents and opponents of test sample 103" in (folder / "index.html").read_text()


def test_a_test_index_that_is_not_in_the_subset(root):
    result = call(
        *("run_pvalues", "--root", root, "--experiment", EXPERIMENT.name, "--test_index", 7)
    )
    result.check_refused("test sample 7 is not in the test subset of digits3")
    assert not Paths(root).results(EXPERIMENT).exists()


def test_run_correlations_writes_table_and_figure(page):
    folder, printed = page
    table = pd.read_csv(folder / "correlations.csv")
    assert len(table) == 3 * 2 * 10
    assert set(table.statistic) == {"mean", "std", "pvalue"}
    assert not table.duplicated(["statistic", "coefficient", "method_a", "method_b"]).any()
    row = table.query(
        "statistic == 'std' and coefficient == 'spearman'"
        " and method_a == 'ats' and method_b == 'gc'"
    )
    std = {
        m: np.stack([score_file(m, seed)["scores"].numpy() for seed in load_seeds()])
        .mean(1, dtype=np.float64)
        .std(0, ddof=1)
        for m in ("ats", "gc")
    }
    expected = spearmanr(std["ats"].ravel(), std["gc"].ravel()).statistic
    assert row.value.item() == pytest.approx(expected)
    assert (table.low < table.value).all()
    assert (table.value < table.high).all()
    assert list(pd.read_csv(folder / "agreement.csv").method) == ["ats", "if", "gd", "gc"]
    for name in (
        "correlations",
        "agreement_distances",
        "agreement_confusions",
        "agreement_of_seeds",
    ):
        assert (folder / "figures" / f"{name}.pdf").stat().st_size > 1000
    assert "spearman of std" in printed["correlations"]


@pytest.mark.parametrize("script", ["run_pvalues", "run_correlations"])
def test_nothing_is_written_when_one_of_several_experiments_lacks_scores(root, script):
    result = call(script, "--root", root, "--experiment", EXPERIMENT.name, "cnn3_digits3_10pc")
    result.check_refused("scores of cnn3_digits3_10pc are missing")
    assert not (root / "results").exists()


def test_both_scripts_share_a_page(page):
    html = (page[0] / "index.html").read_text()
    assert 0 < html.index("Reliability of the scores") < html.index("Agreement between methods")


def test_scripts_do_with_methods_missing(root):
    for method in ("loo", "if", "gc"):
        for seed_id in range(10):
            scores_path(root, method, seed_id).unlink()
    for script in ("run_pvalues", "run_correlations"):
        arguments = ("--root", root, "--experiment", EXPERIMENT.name, "--allow_missing")
        out = call_well(script, *arguments).replace(str(root), "")
        assert "ats" in out
        assert "loo" not in out
