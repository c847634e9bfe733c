"""The paper's tables and figures: what is listed, drawn, recorded and written into RESULTS.md."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from src.ensemble.draws import load_seeds
from src.errors import UserError
from src.experiments import PAPER_METHODS, REPOSITORY, Paths, parse_experiment
from src.paper import measured as measured_module
from src.paper import recording
from src.paper.exhibits import EXHIBITS, SCALES, exhibits_of, scored_of
from src.paper.measured import Measured
from src.paper.needed import Asked, commands, merged, needs_of
from src.paper.recording import record
from src.paper.results import RESULTS, rendered
from src.paper.tables import TABLES
from src.storage.files import save
from tests.tools import call, call_well, save_images, score_content, subsets_content

N_TEST, N_SUBSETS = 20, 9
# The others draw many figures, which takes long; tests/reports has their kinds.
DRAWN = ["reliability", "sources", "complexity", "size", "draws"]
QUICK = Asked("quick", None, None, [])


def plant(root, names, n_seeds, n_train=12, shift=0.4, **settings):
    """Save scores of noise with a common mean, of all methods, made with the settings."""
    paths, rng = Paths(root), np.random.default_rng(0)
    for name in names:
        effect = shift * rng.normal(size=(1, n_train, N_TEST))
        for method in PAPER_METHODS:
            for seed in load_seeds(n_seeds):
                scores = effect + rng.normal(size=(5, n_train, N_TEST))
                content = score_content(name, method, seed, torch.from_numpy(scores).float())
                content["settings"] |= settings
                save(paths.scores(parse_experiment(name), method, seed), content)


def plant_subsets(root, name, n_seeds, n_train=12):
    """Save losses of noise of models on subsets."""
    rng = np.random.default_rng(1)
    masks = torch.from_numpy(np.stack([rng.permutation(n_train) < 6 for _ in range(N_SUBSETS)]))
    for seed in load_seeds(n_seeds):
        losses = torch.from_numpy(rng.normal(size=(5, N_SUBSETS, N_TEST))).float()
        content = subsets_content(name, seed, masks, losses)
        save(Paths(root).subsets(parse_experiment(name), "truth", seed), content)


def plant_on_themselves(root, name, n_seeds, n_train=12):
    """Save scores of noise of the training samples on themselves, of all methods."""
    at, rng = Paths(root, on_itself=True), np.random.default_rng(2)
    for method in PAPER_METHODS:
        for seed in load_seeds(n_seeds):
            scores = torch.from_numpy(rng.normal(size=(5, n_train, n_train))).float()
            content = score_content(name, method, seed, scores)
            content["test_idx"] = content["train_idx"]
            save(at.scores(parse_experiment(name), method, seed), content)
    save_images(Paths(root), "train_10pc", n_train)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root with scores of noise at the scale quick, and the page of most exhibits."""
    root = tmp_path_factory.mktemp("paper")
    names = {e.name for name in DRAWN for e in EXHIBITS[name].needs("quick")}
    plant(root, sorted(names), n_seeds=6)
    said = call_well("run_paper", "--root", root, "--scale", "quick", "--only", *DRAWN)
    root.joinpath("said.txt").write_text(said)
    return root


def folder(root):
    return Paths(root).paper("quick")


def test_exhibits_are_drawn_into_one_page(root):
    said = root.joinpath("said.txt").read_text().splitlines()
    assert said == [*(f"{name}: drawn" for name in DRAWN), str(folder(root) / "index.html")]
    page = (folder(root) / "index.html").read_text()
    for name in DRAWN:
        assert f">{EXHIBITS[name].title}</h2>" in page
    figures = {path.stem for path in (folder(root) / "figures").glob("*.png")}
    assert figures == {
        "mean_pvalues",
        "sources_cnn2_digits3_20pc",
        "complexity_digits3_10pc_both",
        "size_digits3_cnn2_both",
        "few_against_many_cnn2_digits3_10pc",
    }


def test_parts_say_their_seeds_and_do_not_lose_each_others_files(root):
    parts = [json.loads(p.read_text()) for p in folder(root).glob(".report/*.json")]
    assert len(parts) == len(DRAWN) + 1
    for part in parts:
        assert all((folder(root) / file).exists() for file in part["files"])
    titles = [item["title"] for part in parts for item in part["items"]]
    assert sum("(3 seeds)" in title for title in titles) >= 10
    assert any("(6 seeds)" in title for title in titles)  # of what more draws show


def test_what_is_missing_is_said_and_the_rest_is_drawn(tmp_path):
    plant(tmp_path, EXHIBITS["size"].experiments["quick"], n_seeds=3)
    save_images(Paths(tmp_path), "train_10pc", 12)
    arguments = ("--root", tmp_path, "--scale", "quick", "--only", "draws", "size", "complexity")
    said = call_well("run_paper", *arguments).splitlines()
    assert said[0].startswith("complexity: not drawn, scores are missing of cnn3_digits3_10pc and")
    assert said[1] == "size: drawn"
    assert said[2].startswith("draws: not drawn, scores are missing of cnn2_digits3_10pc")
    assert [line.split()[1] for line in said[4:-1]] == ["run_subset_generation.py"] + [
        "run_parallel.py"
    ] * 3
    made_by = "\n".join(said[4:])
    assert "--experiment cnn2_digits3_10pc --seed_id 0-5 --train_samples 10" in made_by
    vit = "--experiment vit_digits3_10pc --seed_id 0-2 --train_samples 10 --backbone tiny"
    assert vit in made_by
    empty = call("run_paper", "--root", tmp_path / "new", "--scale", "quick", "--only", "size")
    empty.check_refused("nothing is drawn")
    assert not (tmp_path / "new").exists()


def test_files_that_are_there_need_no_checkpoints_and_others_do(tmp_path):
    plant(tmp_path, ["cnn2_digits3_10pc"], n_seeds=3)
    paths = Paths(tmp_path)
    [need] = needs_of(EXHIBITS["pairs"], QUICK, paths)
    assert need.is_there
    assert not any(need.missing.values())
    paths.scores(need.experiment, "gc", load_seeds()[1]).unlink()
    [need] = needs_of(EXHIBITS["pairs"], QUICK, paths)
    assert need.n_complete == 2
    assert need.missing == {"loo": [], "if": [], "ats": [], "gd_and_gc": [1], "training": [1]}
    [more] = needs_of(EXHIBITS["draws"], QUICK, paths)
    [both] = merged([need, more])
    assert both.seed_ids == [0, 1, 2, 3, 4, 5]
    assert both.missing["loo"] == [3, 4, 5]
    assert both.missing["gd_and_gc"] == [1, 3, 4, 5]


@pytest.mark.parametrize("scale", SCALES)
def test_every_exhibit_names_known_experiments(scale):
    for exhibit in EXHIBITS.values():
        assert exhibit.needs(scale)
    paths = Paths(REPOSITORY / "nowhere")
    needs = merged(
        [n for e in EXHIBITS.values() for n in needs_of(e, Asked(scale, None, None, []), paths)]
    )
    assert len({need.experiment.name for need in needs}) == len(needs)
    assert [*commands(needs, Asked(scale, None, None, []), paths)]


def test_how_many_rows_are_scored():
    small, large = (parse_experiment(f"cnn2_cifar10_{n}pc") for n in (10, 50))
    assert scored_of("paper", large, None) is None
    assert scored_of("paper", large, 200) == 200
    assert scored_of("paper", small, 200) is None
    assert scored_of("quick", parse_experiment("cnn2_digits3_10pc"), None) == 10
    assert scored_of("paper", parse_experiment("cnn2_mnist_all"), None) is None
    assert scored_of("paper", parse_experiment("cnn2_mnist_all"), 20) == 20


def test_too_few_seeds_for_groups_are_told(tmp_path):
    plant(tmp_path, ["cnn2_digits3_10pc"], n_seeds=4)
    arguments = ("--root", tmp_path, "--scale", "quick", "--only", "draws", "--seed_id")
    call("run_paper", *arguments, "0-2").check_refused("takes four seeds at least", "has 3")
    assert not folder(tmp_path).exists()
    call_well("run_paper", *arguments, "0-3")


def test_wrong_names_and_options_are_told():
    with pytest.raises(UserError, match="unknown exhibit 'sizes': choose from reliability"):
        exhibits_of(["sizes"])
    call("run_paper", "--only", "sizes").check_refused("unknown exhibit 'sizes'")
    call("run_paper", "--list", "--run").check_refused("not allowed with argument")
    call("run_paper", "--record", "cnn9_digits3_10pc").check_refused("unknown model 'cnn9'")
    call("run_paper", "--partition", "gpu").check_refused("no effect without --slurm")
    call("run_paper", "--only", "size", "--random_crop").check_refused(
        "no effect without an experiment of a ViT"
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A folder of what was measured of experiments of 10, 20, 6 and 3 draws."""
    folder = tmp_path_factory.mktemp("recorded")
    root = folder / "root"
    plant(root, ["cnn2_digits3_10pc", "cnn2_digits3_10pc_init"], n_seeds=20)
    plant_subsets(root, "cnn2_digits3_10pc", n_seeds=10)
    plant(root, ["cnn2_digits3_20pc"], n_seeds=6)
    plant(root, ["cnn2_digits3_50pc"], n_seeds=3)
    plant(root, ["cnn2_digits3_10pc_noisy"], n_seeds=3)
    plant_on_themselves(root, "cnn2_digits3_10pc_noisy", n_seeds=3)
    for name, seed_ids in (
        ("cnn2_digits3_10pc_noisy", [0, 1, 2]),
        ("cnn2_digits3_10pc", None),
        ("cnn2_digits3_10pc", [*range(20)]),
        ("cnn2_digits3_20pc", [*range(6)]),
        ("cnn2_digits3_50pc", [0, 1, 2]),
    ):
        record(parse_experiment(name), Paths(root), seed_ids, 0.05, folder / "measured")
    return folder / "measured"


def test_what_is_recorded_is_what_the_scores_give(recorded):
    one = Measured.of("cnn2_digits3_10pc", recorded)
    files = {path.stem for path in (recorded / one.name).iterdir()}
    assert {"about", "pvalues", "sources", "correlations", "variance", "fit"} <= files
    assert {"accuracy", "accuracy_by_method", "top_samples", "distributions"} <= files
    assert (one.table("accuracy_by_method")["subsets"] == N_SUBSETS).all()
    assert one.n_draws == 10
    assert one.about["seed_id"] == "0-9"
    assert list(one.pvalues.index.unique("draws")) == [3, 5, 10]
    paths, experiment = Paths(recorded.parent / "root"), parse_experiment(one.name)
    scores = np.stack(
        [
            torch.load(paths.scores(experiment, "if", seed), weights_only=True)["scores"]
            for seed in load_seeds(5)
        ]
    ).mean(axis=1, dtype=np.float64)
    expected = scores.std(axis=0, ddof=1).mean()
    assert one.pvalues.loc[(5, "if"), "mean_std"] == pytest.approx(expected, rel=1e-5)
    of_seeds = one.table("agreement_by_seed").query("coefficient == 'pearson'")
    assert of_seeds["seed"].tolist() == load_seeds()
    mean = one.table("agreement").set_index("method").loc["if", "pearson_of_seeds"]
    assert of_seeds["if"].mean() == pytest.approx(mean, abs=1e-5)
    more = Measured.of("cnn2_digits3_10pc_20draws", recorded)
    assert more.n_draws == 20
    files = {path.stem for path in (recorded / more.name).iterdir()}
    assert "few_against_many" in files
    assert "accuracy" not in files  # of some seeds there are no models on subsets


def test_a_record_names_the_backbone_that_there_was(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "_tables", lambda *_: iter(()))
    experiment, root = parse_experiment("vit_digits3_10pc"), tmp_path / "root"
    plant(root, [experiment.name], n_seeds=2, backbone="tiny", random_crop=False)
    folder = record(experiment, Paths(root), [0, 1], 0.05, tmp_path)
    about = pd.read_csv(folder / "about.csv")
    told = about[about["value"].str.contains("tiny|google")]
    assert list(told["name"]) == [f"settings of {method}" for method in PAPER_METHODS]
    assert about["name"].str.startswith("settings: lora").sum() == 3


def test_other_ways_of_a_method_do_not_replace_the_default_one(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "_tables", lambda *_: iter(()))
    root, experiment = tmp_path / "root", parse_experiment("cnn2_digits3_10pc")
    plant(root, [experiment.name], n_seeds=2, protocol="continue", solver="cg", damp=5.0)
    folder = record(experiment, Paths(root), [0, 1], 0.05, tmp_path)
    assert folder.name == "cnn2_digits3_10pc_loo_continue_if_cg_2draws"


def test_some_training_samples_do_not_replace_all(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "_tables", lambda *_: iter(()))
    root, experiment = tmp_path / "root", parse_experiment("cnn2_digits3_10pc")
    plant(root, [experiment.name], n_seeds=2, n_train=7, train_samples_all=30)
    folder = record(experiment, Paths(root), [0, 1], 0.05, tmp_path)
    assert folder.name == "cnn2_digits3_10pc_7rows_2draws"


def test_fewer_draws_do_not_replace_more(recorded):
    paths = Paths(recorded.parent / "root")
    folder = record(parse_experiment("cnn2_digits3_10pc"), paths, [0, 1, 2], 0.05, recorded)
    assert folder.name == "cnn2_digits3_10pc_3draws"
    assert Measured.of("cnn2_digits3_10pc", recorded).n_draws == 10


def test_a_record_of_the_seeds_that_are_there(recorded, tmp_path):
    paths, experiment = Paths(recorded.parent / "root"), parse_experiment("cnn2_digits3_50pc")
    with pytest.raises(UserError, match="--seed_id 3-5 .*--allow_missing"):
        record(experiment, paths, [*range(6)], 0.05, tmp_path)
    assert not any(tmp_path.iterdir())
    folder = record(experiment, paths, [*range(6)], 0.05, tmp_path, allow_missing=True)
    same = recorded / folder.name
    assert {f.name for f in folder.iterdir()} == {f.name for f in same.iterdir()}
    for file in folder.iterdir():
        assert file.read_text() == (same / file.name).read_text()


def test_experiments_are_compared_at_draws_that_all_have(recorded):
    of = [
        Measured.of(f"cnn2_digits3_{n}", recorded) for n in ("10pc", "20pc_6draws", "50pc_3draws")
    ]
    table = TABLES["mean_pvalues"](of)
    assert (table["T"] == 3).all()
    first = of[0].pvalues.loc[(3, "loo"), "mean_pvalue_ttest"]
    assert table["LOO"][0].startswith(f"{first:.3f} (")
    assert (TABLES["mean_pvalues"](of[:2])["T"] == 5).all()
    steps = TABLES["steps"](of)
    change = (
        of[1].pvalues.loc[(3, "gc"), "mean_pvalue_ttest"]
        - of[0].pvalues.loc[(3, "gc"), "mean_pvalue_ttest"]
    )
    assert steps["GC"][0].startswith(f"{change:+.3f} (")


def test_a_method_that_was_not_measured_has_a_dash(recorded, tmp_path):
    name = "cnn2_digits3_50pc_3draws"
    shutil.copytree(recorded / name, tmp_path / name)
    for file in ("pvalues.csv", "resamples.csv"):
        lines = (tmp_path / name / file).read_text().splitlines(keepends=True)
        kept = [line for line in lines if "if" not in line.split(",")]
        assert len(kept) < len(lines)
        (tmp_path / name / file).write_text("".join(kept))
    some, whole = (Measured.of(name, folder) for folder in (tmp_path, recorded))
    for table in ("mean_pvalues", "significant", "published_pvalues"):
        found, expected = TABLES[table]([some]), TABLES[table]([whole])
        assert list(found["IF"]) == ["–"]
        assert found.drop(columns="IF").equals(expected.drop(columns="IF"))


def test_tables_are_written_between_their_comments(recorded):
    page = "before\n<!-- table: {} -->\nold\n<!-- end of table -->\nafter\n"
    of = {
        "sources": "cnn2_digits3_10pc",
        "few_against_many": "cnn2_digits3_10pc_20draws",
        "steps": "cnn2_digits3_10pc cnn2_digits3_20pc_6draws",
        "mislabelled": "cnn2_digits3_10pc_noisy_3draws",
    }
    for name in TABLES:
        if name in ("accuracy", "iris_fits", "image_fits"):  # of noise there is neither
            continue
        text = rendered(page.format(f"{name} {of.get(name, 'cnn2_digits3_10pc')}"), recorded)
        assert text.startswith("before\n")
        assert text.endswith("\n<!-- end of table -->\nafter\n")
        assert "old" not in text
        assert text.count("|") > 10
        assert rendered(text, recorded) == text
    with pytest.raises(UserError, match="unknown table 'means'"):
        rendered(page.format("means cnn2_digits3_10pc"), recorded)
    with pytest.raises(UserError, match="names no experiment"):
        rendered(page.format("mean_pvalues"), recorded)
    with pytest.raises(UserError, match="nothing was measured of cnn3_digits3_10pc yet"):
        rendered(page.format("mean_pvalues cnn3_digits3_10pc"), recorded)
    with pytest.raises(UserError, match="20pc_6draws has no accuracy.csv"):
        rendered(page.format("accuracy_beside_reliability cnn2_digits3_20pc_6draws"), recorded)


def test_the_tables_of_results_are_those_of_what_was_measured():
    text = RESULTS.read_text(encoding="utf-8")
    assert rendered(text) == text


def test_what_was_measured_says_what_it_is():
    for about in sorted(measured_module.FOLDER.glob("*/about.csv")):
        one = Measured.of(about.parent.name)
        if "study" in one.about:
            assert one.name == f"fragility_{one.about['study']}_{one.about['scale']}"
            continue
        assert one.name.startswith(one.about["experiment"])
        assert int(one.about["draws"]) == one.n_draws >= 2
        assert {"date", "torch", "seed_id", "train_samples_scored"} <= one.about.keys()
        assert pd.to_numeric(one.table("pvalues")["mean_pvalue_ttest"]).between(0, 1).all()
