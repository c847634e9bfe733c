"""Loading the scores of all seeds, and the tables, figures and scripts made of them."""

import numpy as np
import pandas as pd
import pytest
import torch

import run_correlations
import run_pvalues
from src.draws import load_seeds
from src.errors import UserError
from src.experiments import METHODS, Paths, parse_experiment
from src.results import correlation_matrices, correlation_table, load_scores, pvalue_tables
from src.stats import pvalues
from src.storage import load, save

EXPERIMENT = parse_experiment("cnn2_digits3_10pc")
N_TRAIN, N_TEST = 6, 8


def score_file(method, seed, **changes):
    generator = torch.Generator().manual_seed(seed * 10 + METHODS.index(method))
    pair = torch.arange(N_TRAIN * N_TEST).reshape(N_TRAIN, N_TEST) / 10
    noise = torch.randn(5, N_TRAIN, N_TEST, generator=generator)
    return {
        "scores": pair + noise,
        "epochs": torch.arange(10, 15),
        "train_idx": torch.arange(N_TRAIN),
        "test_idx": torch.arange(N_TEST) + 100,
        "experiment": EXPERIMENT.name,
        "method": method,
        "seed": seed,
        "settings": {"checkpoints": f"of {seed}", "torch": "2", "device": "cpu"},
        **changes,
    }


@pytest.fixture
def root(tmp_path):
    """A root folder with scores of all methods and seeds, and images of the pairs."""
    paths = Paths(tmp_path)
    for seed in load_seeds():
        for method in METHODS:
            save(paths.scores(EXPERIMENT, method, seed), score_file(method, seed))
    for split, n in (("train_10pc", N_TRAIN), ("test", N_TEST)):
        save(
            paths.tensors("digits3", split),
            {
                "images": torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8),
                "labels": torch.arange(n) % 3,
                "indices": torch.arange(n),
            },
        )
    return tmp_path


def scores_path(root, method, seed_id):
    return Paths(root).scores(EXPERIMENT, method, load_seeds()[seed_id])


def run_script(script, monkeypatch, root, *arguments):
    command = [f"{script.__name__}.py", "--root", str(root), "--experiment", EXPERIMENT.name]
    monkeypatch.setattr("sys.argv", [*command, *arguments])
    script.main()


def test_load_scores_stacks_seeds_in_order(root):
    scores = load_scores(Paths(root), EXPERIMENT, allow_missing=False)
    assert list(scores.scores) == list(METHODS)
    for method in METHODS:
        assert scores.seeds[method] == load_seeds()
        for t, seed in enumerate(load_seeds()):
            expected = score_file(method, seed)["scores"].numpy()
            np.testing.assert_array_equal(scores.scores[method][t], expected)


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
        "python run_loo.py --experiment cnn2_digits3_10pc --seed_id 3"
        " && python run_if.py --experiment cnn2_digits3_10pc"
        " && python run_gd_and_gc.py --experiment cnn2_digits3_10pc --seed_id 7 (" in message
    )


def test_allow_missing_goes_on_with_two_seeds_at_least(root):
    for seed_id in range(8):
        scores_path(root, "ats", seed_id).unlink()
    for seed_id in range(9):
        scores_path(root, "if", seed_id).unlink()
    scores = load_scores(Paths(root), EXPERIMENT, allow_missing=True)
    assert list(scores.scores) == ["loo", "ats", "gd", "gc"]
    assert scores.seeds["ats"] == load_seeds()[8:]


def test_allow_missing_with_one_seed_is_an_error(tmp_path):
    save(scores_path(tmp_path, "loo", 0), score_file("loo", load_seeds()[0]))
    with pytest.raises(UserError, match="no method has scores of two seeds"):
        load_scores(Paths(tmp_path), EXPERIMENT, allow_missing=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_idx": torch.arange(N_TRAIN) + 1}, "another train_idx"),
        ({"settings": {"checkpoints": "of others"}}, "other checkpoints"),
        ({"settings": {"checkpoints": "of 854", "damp": 1}}, "not computed alike: damp is 1"),
    ],
)
def test_scores_that_do_not_belong_together(root, changes, message):
    seed_id = load_seeds().index(854)
    save(scores_path(root, "if", seed_id), score_file("if", 854, **changes))
    with pytest.raises(UserError, match=message):
        load_scores(Paths(root), EXPERIMENT, allow_missing=False)


def test_pvalue_tables_have_a_row_per_number_of_checkpoints(root):
    scores = load_scores(Paths(root), EXPERIMENT, allow_missing=False)
    means, fractions, p = pvalue_tables(scores, "ttest", 0.05)
    assert list(means.index) == [1, 2, 3, 4, 5]
    for k in means.index:
        for method in METHODS:
            expected = pvalues(scores.scores[method][:, -k:].mean(1, dtype=np.float64))
            assert means.loc[k, method] == pytest.approx(expected.mean())
            assert fractions.loc[k, method] == pytest.approx((expected < 0.05).mean())
    np.testing.assert_allclose(p["loo"], expected_at_all_checkpoints(scores, "loo"))


def expected_at_all_checkpoints(scores, method):
    return pvalues(scores.scores[method].mean(1, dtype=np.float64))


def test_correlation_table_has_each_pair_of_methods_once(root):
    scores = load_scores(Paths(root), EXPERIMENT, allow_missing=False)
    matrices = correlation_matrices(scores)
    table = correlation_table(matrices)
    assert len(table) == 3 * 2 * 10
    assert not table.duplicated(["statistic", "coefficient", "method_a", "method_b"]).any()
    row = table[(table.statistic == "std") & (table.coefficient == "spearman")].query(
        "method_a == 'ats' and method_b == 'gc'"
    )
    assert row.value.item() == matrices["std", "spearman"].loc["ats", "gc"]


@pytest.mark.parametrize("test", ["ttest", "snr"])
def test_run_pvalues_writes_tables_and_figures(root, monkeypatch, capsys, test):
    run_script(run_pvalues, monkeypatch, root, "--test", test)
    folder = Paths(root).results(EXPERIMENT)
    suffix = "" if test == "ttest" else "_snr"
    table = pd.read_csv(folder / f"mean_pvalues{suffix}.csv", index_col="checkpoints")
    assert list(table.columns) == list(METHODS)
    assert list(table.index) == [1, 2, 3, 4, 5]
    content = load(folder / f"pvalues{suffix}.pt", make="")
    for method in METHODS:
        assert content[method].shape == content["mean"][method].shape == (N_TRAIN, N_TEST)
        assert content[method].mean().item() == pytest.approx(table.loc[5, method])
        scores = torch.stack([score_file(method, seed)["scores"] for seed in load_seeds()])
        torch.testing.assert_close(content["std"][method].float(), scores.mean(1).std(0))
    for name in (
        "pvalue_histograms",
        "mean_pvalue_by_checkpoints",
        "mean_against_std",
        "loo_pairs",
    ):
        for ending in ("pdf", "png"):
            assert (folder / "figures" / f"{name}{suffix}.{ending}").stat().st_size > 1000
    assert "mean p-value" in capsys.readouterr().out


def test_run_correlations_writes_table_and_figure(root, monkeypatch, capsys):
    run_script(run_correlations, monkeypatch, root)
    folder = Paths(root).results(EXPERIMENT)
    table = pd.read_csv(folder / "correlations.csv")
    assert set(table.statistic) == {"mean", "std", "pvalue"}
    assert (folder / "figures" / "correlations.pdf").stat().st_size > 1000
    assert "spearman of std" in capsys.readouterr().out


def test_scripts_do_with_a_method_missing(root, monkeypatch, capsys):
    for seed_id in range(10):
        scores_path(root, "loo", seed_id).unlink()
    for script in (run_pvalues, run_correlations):
        run_script(script, monkeypatch, root, "--allow_missing")
    assert "loo" not in capsys.readouterr().out.replace("loo_pairs", "")
