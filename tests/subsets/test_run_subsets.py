"""run_subsets.py and the estimators from its files, end to end on digits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from src.ensemble.draws import Draw
from src.errors import UserError
from src.experiments import METHODS, SUBSET_KINDS, Paths, parse_experiment
from src.models import build
from src.storage.files import load, save
from src.storage.locks import lock
from src.subsets.files import load_subsets
from src.subsets.masks import Subsets
from src.tda.pieces import PartialFile
from tests import reference
from tests.conftest import DIGITS
from tests.tools import call, call_well, relative_error, tree

EXPERIMENT = parse_experiment(DIGITS)
N = {"truth": 3, "half": 12, "independent": 12, "permutations": 2}
METHODS_OF_SUBSETS = [name for name, method in METHODS.items() if method.subsets]


def subsets(root: Path, *args: object) -> tuple[object, ...]:
    return ("run_subsets", "--root", root, "--experiment", DIGITS, "--seed_id", 0, *args)


def estimators(root: Path, *args: object) -> tuple[object, ...]:
    return ("run_estimators", "--root", root, "--experiment", DIGITS, "--seed_id", 0, *args)


def path_of(root: Path, kind: str) -> Path:
    return Paths(root).subsets(EXPERIMENT, kind, 446)


@pytest.fixture(scope="module")
def trained(digits_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits and their seeds with few subsets of each kind of seed 0. Not to be written to."""
    root = shutil.copytree(digits_root, tmp_path_factory.mktemp("subsets") / "root")
    shutil.rmtree(root / "tda_scores")
    for kind, n in N.items():
        out = call_well(*subsets(root, "--kind", kind, "--n_subsets", n))
        assert out.startswith(f"{path_of(root, kind)}: ")
    return root


@pytest.fixture
def root(trained: Path, copy_of: Callable[[Path], Path]) -> Path:
    """The same, to be written to."""
    return copy_of(trained)


@pytest.mark.parametrize("kind", SUBSET_KINDS)
def test_files(trained: Path, kind: str):
    found = load_subsets(Paths(trained), EXPERIMENT, kind, 446)
    assert (found["experiment"], found["kind"], found["seed"]) == (DIGITS, kind, 446)
    assert found["epochs"].tolist() == [10, 11, 12, 13, 14]
    assert found["settings"]["n_subsets"] == N[kind]
    assert found["losses"].shape == (5, len(found["masks"]), 300)
    if kind == "permutations":
        assert torch.equal(found["permutations"], Subsets.of(kind, 2).permutations(30, 446))
        assert found["lengths"].sum() == len(found["masks"])
    else:
        assert torch.equal(found["masks"], Subsets.of(kind, N[kind]).masks(30, 446))


def test_losses_are_those_of_a_plain_training(trained: Path):
    found = load_subsets(Paths(trained), EXPERIMENT, "truth", 446)
    data = []
    for split, n in (("train_10pc", 30), ("test", 300)):
        tensors = torch.load(Paths(trained).tensors("digits3", split), weights_only=True)
        assert len(tensors["labels"]) == n
        data.append((tensors["images"].float() / 255, tensors["labels"]))
    inside = found["masks"][1].nonzero().flatten().tolist()
    expected = reference.subset_losses(
        lambda: build(EXPERIMENT), *data, inside, 446, 15, [10, 11, 12, 13, 14]
    )
    assert relative_error(found["losses"][:, 1], expected) < 1e-4


def test_the_empty_and_the_whole_set(trained: Path):
    found = load_subsets(Paths(trained), EXPERIMENT, "permutations", 446)
    test = torch.load(Paths(trained).tensors("digits3", "test"), weights_only=True)
    model = build(EXPERIMENT).eval()
    states = [Draw(446, 446).start(lambda: build(EXPERIMENT))]
    for epoch in found["epochs"].tolist():
        content = torch.load(Paths(trained).checkpoint(EXPERIMENT, 446, epoch))
        states.append(content["model_state_dict"])
    for state, expected in zip(states, [found["start"], *found["whole"]], strict=True):
        model.load_state_dict(state)
        with torch.no_grad():
            outputs = model(test["images"].float() / 255)
        losses = torch.nn.functional.cross_entropy(outputs, test["labels"], reduction="none")
        assert relative_error(losses, expected) < 1e-4


def test_settings(root: Path):
    before = tree(root)
    assert "finished before" in call_well(*subsets(root, "--n_subsets", 3))
    call(*subsets(root)).check_refused(
        "truth/446.pt was made with other settings (n_subsets is 3, now 100)",
        f"run_subsets.py --experiment {DIGITS} --kind truth --seed_id 0 --n_subsets 100",
        "--overwrite",
    )
    call(*subsets(root, "--n_subsets", 3, "--fraction", 0.3)).check_refused(
        "fraction is 0.5, now 0.3"
    )
    assert tree(root) == before
    call_well(*subsets(root, "--n_subsets", 3, "--fraction", 0.3, "--overwrite"))
    assert (load_subsets(Paths(root), EXPERIMENT, "truth", 446)["masks"].sum(1) == 9).all()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--kind", "some"], "invalid choice: 'some'"),
        (["--n_subsets", "0"], "not a whole number of at least 1"),
        (["--fraction", "1"], "'1' is not a number above 0 and below 1"),
        (["--fraction", "0.01"], "--fraction 0.01 of 30 training samples is 0"),
        (["--inclusion", "0.2"], "--inclusion has no effect without --kind independent"),
        (
            ["--kind", "permutations", "--fraction", "0.2"],
            "--fraction has no effect without --kind truth or half",
        ),
    ],
)
def test_wrong_options(digits_root: Path, args: list[str], says: str):
    before = tree(digits_root)
    call(*subsets(digits_root, *args)).check_refused(says)
    assert tree(digits_root) == before


@pytest.mark.parametrize("kind", ["half", pytest.param("permutations", marks=pytest.mark.slow)])
def test_interrupted(root: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    """It goes on from the models that are trained, to the same numbers."""
    args = subsets(root, "--kind", kind, "--n_subsets", N[kind], "--chunk_size", 5)
    call_well(*args, "--overwrite")
    path = path_of(root, kind)
    expected = tree(path.parent)
    path.unlink()
    add, n_trained = PartialFile.add, []

    def add_and_stop(self: PartialFile, piece: object) -> None:
        add(self, piece)
        if len(self.done) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PartialFile, "add", add_and_stop)
        assert call(*args).code == 130
    assert [each.name for each in path.parent.iterdir()] == ["446.partial.pt"]
    from src.subsets import training

    weighted = training.weighted_losses

    def counted(*given: object, **named: object):  # noqa: ANN202
        n_trained.append(len(given[2]))
        return weighted(*given, **named)

    monkeypatch.setattr(training, "weighted_losses", counted)
    result = call(*args)
    assert result.code == 0, result
    assert f"{kind} subsets seed 446: going on from 10 of" in result.err
    assert tree(path.parent) == expected
    if kind == "half":
        assert sum(n_trained) == 2


@pytest.mark.parametrize("method", METHODS_OF_SUBSETS)
def test_scores(root: Path, method: str):
    out = call_well(*estimators(root, "--method", method))
    every = torch.load(Paths(root).scores(EXPERIMENT, method, 446), weights_only=True)
    assert every["scores"].shape == (5, 30, 300)
    assert every["settings"]["subsets"]
    if method == "shapley":
        assert "efficiency: scores sum to" in out
        start, whole = (
            load_subsets(Paths(root), EXPERIMENT, "permutations", 446)[k]
            for k in ("start", "whole")
        )
        gap = every["scores"].sum(1) - (start - whole)
        assert torch.allclose(gap, every["gap"], atol=1e-5)
        assert every["gap_error"].shape == (5, 300)
    assert "finished before" in call_well(*estimators(root, "--method", method))
    some = call(*estimators(root, "--method", method, "--train_samples", 4))
    some.check_refused("train_samples_scored is None, now 4")
    call_well(*estimators(root, "--method", method, "--train_samples", 4, "--overwrite"))
    found = torch.load(Paths(root).scores(EXPERIMENT, method, 446), weights_only=True)
    rows = [every["train_idx"].tolist().index(i) for i in found["train_idx"].tolist()]
    assert relative_error(found["scores"], every["scores"][:, rows]) < 1e-6


def test_scores_of_other_subsets(root: Path):
    call_well(*estimators(root, "--method", "banzhaf"))
    args = ("--kind", "independent", "--n_subsets", 12, "--inclusion", 0.6, "--overwrite")
    call_well(*subsets(root, *args))
    call(*estimators(root, "--method", "banzhaf")).check_refused(
        "banzhaf/446.pt was made with other settings (inclusion is 0.5, now 0.6"
    )


def test_seeds_stand_in_one_report(root: Path):
    """Their losses differ; how their subsets were drawn must not."""
    two = ("--seed_id", "0,1")
    for kind, n in N.items():
        call_well(*subsets(root, "--kind", kind, "--n_subsets", n, *two))
    call_well(*estimators(root, "--method", *METHODS_OF_SUBSETS, *two))
    pages = ("--root", root, "--experiment", DIGITS, "--methods", *METHODS_OF_SUBSETS, *two)
    call_well("run_accuracy", *pages)
    of_draws = pd.read_csv(root / "results" / DIGITS / "accuracy_by_draws.csv")
    of_one = of_draws[of_draws["draws_averaged"] == 1].groupby("method")["trainings"].first()
    # Of a permutation the prefixes between the empty and the whole set, at most.
    assert of_one.to_dict() == dict.fromkeys(METHODS_OF_SUBSETS, 13) | {"shapley": 1 + 2 * 29}
    args = ("--kind", "half", "--n_subsets", 12, "--fraction", 0.4, "--overwrite", "--seed_id", 1)
    call_well(*subsets(root, *args))
    call_well(*estimators(root, "--method", "datamodel", "--overwrite", "--seed_id", 1))
    call("run_correlations", *pages).check_refused(
        "the seeds of datamodel were not computed alike: fraction is 0.4 in"
    )


@pytest.mark.parametrize("method", METHODS_OF_SUBSETS)
def test_without_subsets(digits_root: Path, method: str):
    kind = METHODS[method].subsets
    before = tree(digits_root)
    call(*estimators(digits_root, "--method", method)).check_refused(
        f"subsets/{kind}/446.pt does not exist",
        f"run_subsets.py --experiment {DIGITS} --kind {kind} --seed_id 0 --root",
    )
    assert tree(digits_root) == before


def test_of_other_checkpoints(root: Path):
    path = path_of(root, "half")
    content = load(path, "")
    save(path, content | {"settings": content["settings"] | {"checkpoints": "0" * 64}})
    call(*estimators(root, "--method", "downsampling")).check_refused(
        "half/446.pt was made with other settings (checkpoints is 000000000000...",
        f"run_subsets.py --experiment {DIGITS} --kind half --seed_id 0",
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 724}, "says that it is"),
        ({"kind": "truth"}, "says that it is"),
        ({"masks": torch.ones(12, 30)}, r"masks is float32 \[12, 30\], where bool"),
        ({"losses": torch.ones(5, 12, 299)}, r"losses is float32 \[5, 12, 299\], where"),
        ({"losses": torch.full((5, 12, 300), torch.nan)}, "not finite are 18,000 of 18,000 losses"),
        ({"epochs": torch.arange(5)}, r"the epochs are \[0, 1, 2, 3, 4\], where"),
        ({"train_idx": torch.zeros(30, dtype=torch.int64)}, "train_idx holds no index, or one tw"),
    ],
)
def test_a_file_that_is_not_sound(root: Path, change: dict, says: str):
    path = path_of(root, "half")
    save(path, load(path, "") | change)
    with pytest.raises(UserError, match=says) as error:
        load_subsets(Paths(root), EXPERIMENT, "half", 446)
    assert "run_subsets.py" in str(error.value)


def test_lengths_that_are_not_those_of_the_subsets(root: Path):
    path = path_of(root, "permutations")
    content = load(path, "")
    save(path, content | {"lengths": content["lengths"] - 1})
    with pytest.raises(UserError, match="lengths of its permutations are not those of its subsets"):
        load_subsets(Paths(root), EXPERIMENT, "permutations", 446)


def test_a_held_file_is_left(root: Path):
    path_of(root, "half").unlink()
    with lock(Paths(root).subsets_lock(EXPERIMENT, "half", 446)):
        result = call(*subsets(root, "--kind", "half"))
    assert result.code == 3
    assert "half/446.pt: " in result.err
    assert not path_of(root, "half").exists()


def test_given_checkpoints(root: Path, tmp_path: Path):
    """How these were trained is not known, so that nothing can be trained like them."""
    files = []
    for epoch in EXPERIMENT.kept_epochs:
        state = torch.load(Paths(root).checkpoint(EXPERIMENT, 446, epoch))["model_state_dict"]
        files.append(tmp_path / f"{epoch}.pt")
        torch.save(state, files[-1])
    arguments = ("--experiment", DIGITS, "--seed_id", 0, "--overwrite", "--checkpoints", *files)
    call_well("run_cnn_training", "--root", root, *arguments)
    for refused in (subsets(root, "--overwrite"), estimators(root, "--method", "shapley")):
        call(*refused).check_refused("was given by --checkpoints", "run_cnn_training.py")
