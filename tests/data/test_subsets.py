"""Index files: those committed, those drawn anew, and those that a person drops in."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from src.data.sources import load_splits
from src.data.subsets import draw_indices, index_file, read_indices, split_names
from src.errors import UserError
from src.experiments import TASKS, Paths, Task
from tests.conftest import DATASETS, committed_indices
from tests.tools import call, call_well, tree

PAPER_SUBSETS = DATASETS.parent / "paper_subsets"
DIGITS3 = TASKS["digits3"]
LABELS = load_digits().target


def indices_of(task: Task, split: str) -> list[int]:
    """Return the committed indices of a split."""
    text = (committed_indices(task.name) / f"{split}.txt").read_text()
    return [int(line) for line in text.splitlines()]


def full_labels(task: Task, split: str, source: Path | None = None) -> np.ndarray:
    """Return the labels of the full split that a subset's split is drawn from."""
    return load_splits(task, source)[1]["test" if split == "test" else "train"].labels


class TestCommitted:
    """The index files of the repository."""

    @pytest.mark.parametrize("name", TASKS)
    def test_there_is_one_for_every_split(self, name: str):
        files = {path.stem for path in committed_indices(name).iterdir()}
        assert files == set(map(index_file, split_names(TASKS[name])))

    @pytest.mark.parametrize("name", TASKS)
    def test_sizes_and_duplicates(self, name: str):
        task = TASKS[name]
        for split in map(index_file, split_names(task)):
            indices = indices_of(task, split)
            if split == "train_scored":
                assert len(indices) == len(set(indices)) == task.n_scored
                continue
            n = task.n_test_per_class if split == "test" else int(split[6:-2])
            assert len(indices) == len(set(indices)) == n * len(task.classes)

    @pytest.mark.parametrize("name", TASKS)
    def test_balance_and_range(self, name: str, request: pytest.FixtureRequest):
        task = TASKS[name]
        source = request.getfixturevalue("datasets_folder") if task.repository else None
        for split in map(index_file, split_names(task)):
            labels = full_labels(task, split, source)
            indices = indices_of(task, split)
            assert 0 <= min(indices) <= max(indices) < len(labels)
            classes, counts = np.unique(labels[indices], return_counts=True)
            assert classes.tolist() == list(task.classes)
            assert len(set(counts)) == 1

    def test_train_and_test_of_one_pool_are_disjoint(self):
        test = set(indices_of(DIGITS3, "test"))
        assert all(test.isdisjoint(indices_of(DIGITS3, f"train_{n}pc")) for n in (10, 20, 50))

    @pytest.mark.parametrize("name", TASKS)
    def test_train_sets_of_different_sizes_are_drawn_independently(self, name: str):
        """They overlap as chance has it: no set holds the next smaller one."""
        task = TASKS[name]
        sets = [set(indices_of(task, f"train_{n}pc")) for n in task.n_per_class]
        for smaller, larger in zip(sets, sets[1:], strict=False):
            assert len(smaller & larger) < 0.75 * len(smaller)

    @pytest.mark.parametrize("name", TASKS)
    def test_drawing_again_gives_the_same_bytes(
        self, name: str, tmp_path: Path, request: pytest.FixtureRequest
    ):
        source = []
        if TASKS[name].repository:
            source = ["--source", request.getfixturevalue("datasets_folder")]
        out = call_well("run_subset_generation", "--root", tmp_path, "--task", name, *source)
        assert "drawn" in out
        assert tree(tmp_path / "data" / "subset_indices" / name) == tree(committed_indices(name))


def test_a_seed_draws_another_subset():
    a, b = (draw_indices(DIGITS3, "train_10pc", LABELS, seed) for seed in (1, 2))
    assert sorted(a) != sorted(b)
    assert a.tolist() == draw_indices(DIGITS3, "train_10pc", LABELS, 1).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_any_seed_draws_balanced_and_disjoint_subsets(seed: int):
    drawn = {s: draw_indices(DIGITS3, s, LABELS, seed) for s in split_names(DIGITS3)}
    for indices in drawn.values():
        assert len(set(indices.tolist())) == len(indices)
        assert set(np.bincount(LABELS[indices])) == {len(indices) // 3}
    for split in ("train_10pc", "train_20pc", "train_50pc"):
        assert not set(drawn["test"].tolist()) & set(drawn[split].tolist())


class TestDroppedIn:
    """Index files that a person put there."""

    @pytest.mark.parametrize(
        ("lines", "says"),
        [
            ("0\n1\nabc\n", "line 3: 'abc' is not an index"),
            ("0\n-1\n", "line 2: '-1' is not an index"),
            ("0\n1.5\n", "line 2: '1.5' is not an index"),
            ("0\n\n1\n", "line 2: '' is not an index"),
            ("0 1\n", "line 1: '0 1' is not an index"),
            ("0\n٣\n", "line 2: '٣' is not an index"),
            ("0\n1797\n", "line 2: index 1797 is not below 1797"),
            ("0\n1\n10\n1\n", "line 4: index 1 stands in line 2 already"),
            ("0\n1\n3\n", "line 3: sample 3 is of class 3, which digits3 does not have"),
            ("", "is empty"),
        ],
    )
    def test_each_error_names_file_and_line(self, tmp_path: Path, lines: str, says: str):
        path = Paths(tmp_path).indices("digits3", "train_10pc")
        path.parent.mkdir(parents=True)
        path.write_text(lines, encoding="utf-8")
        before = tree(tmp_path)
        result = call("run_subset_generation", "--root", tmp_path, "--task", "digits3")
        result.check_refused(str(path), says)
        assert tree(tmp_path) == before

    def test_a_file_that_is_no_text(self, tmp_path: Path):
        path = tmp_path / "train_10pc.txt"
        path.write_bytes(b"\xff\xfe0\n")
        with pytest.raises(UserError, match=r"cannot read .*train_10pc\.txt"):
            read_indices(path, DIGITS3, LABELS)

    def test_train_and_test_of_one_pool_must_be_disjoint(self, tmp_path: Path):
        folder = tmp_path / "data" / "subset_indices" / "digits3"
        shutil.copytree(committed_indices("digits3"), folder)
        common = indices_of(DIGITS3, "test")[5]
        with (folder / "train_20pc.txt").open("a") as file:
            file.write(f"{common}\n")
        result = call("run_subset_generation", "--root", tmp_path, "--task", "digits3")
        result.check_refused("train_20pc.txt", f"index {common} is in the test set too")

    def test_they_are_used_as_they_are(self, tmp_path: Path):
        path = Paths(tmp_path).indices("digits3", "train_10pc")
        path.parent.mkdir(parents=True)
        chosen = indices_of(DIGITS3, "train_50pc")[48:51]
        text = "\r\n".join(map(str, chosen))  # another system's line ends, and none at the end
        path.write_bytes(text.encode())
        call_well("run_subset_generation", "--root", tmp_path, "--task", "digits3")
        tensors = torch.load(Paths(tmp_path).tensors("digits3", "train_10pc"), weights_only=True)
        assert tensors["indices"].tolist() == chosen
        assert tensors["labels"].tolist() == [0, 0, 1]
        assert path.read_bytes() == text.encode()

    @pytest.mark.parametrize("name", ["mnist3", "cifar10"])
    def test_those_of_the_paper(self, name: str, tmp_path: Path, datasets_folder: Path):
        if not (PAPER_SUBSETS / name).is_dir():
            pytest.skip(f"no subsets of the paper at {PAPER_SUBSETS}")
        paths, splits = Paths(tmp_path), split_names(TASKS[name])
        for split in splits:
            theirs = split.replace("train_", "train_subset_").replace("test", "test_subset")
            paths.indices(name, split).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PAPER_SUBSETS / name / f"{theirs}.txt", paths.indices(name, split))
        before = tree(tmp_path)
        args = ("--root", tmp_path, "--task", name, "--source", datasets_folder)
        out = call_well("run_subset_generation", *args)
        assert out.count("from its index file") == len(splits)
        assert before.items() <= tree(tmp_path).items()
        for split in splits:
            held = torch.load(paths.tensors(name, split), weights_only=True)["indices"].tolist()
            assert held == [int(i) for i in paths.indices(name, split).read_text().split()]


class TestTensors:
    """What every other script reads."""

    @pytest.mark.parametrize("split", split_names(DIGITS3))
    def test_digits(self, digits_root: Path, split: str):
        tensors = torch.load(Paths(digits_root).tensors("digits3", split), weights_only=True)
        indices = indices_of(DIGITS3, split)
        assert tensors["indices"].tolist() == indices
        assert tensors["indices"].dtype == tensors["labels"].dtype == torch.int64
        assert tensors["labels"].tolist() == LABELS[indices].tolist()
        assert tensors["images"].dtype == torch.uint8
        assert torch.equal(
            tensors["images"], load_splits(DIGITS3, None)[1]["train"].inputs(indices)
        )

    def test_mnist(self, mnist_root: Path, datasets_folder: Path):
        task = TASKS["mnist3"]
        _, wholes = load_splits(task, datasets_folder)
        for split in ("test", "train_20pc"):
            tensors = torch.load(Paths(mnist_root).tensors("mnist3", split), weights_only=True)
            indices = indices_of(task, split)
            whole = wholes[split.split("_")[0]]
            assert tensors["labels"].tolist() == whole.labels[indices].tolist()
            assert torch.equal(tensors["images"], whole.inputs(indices))

    def test_they_are_written_once(self, tmp_path: Path):
        args = ("run_subset_generation", "--root", tmp_path, "--task", "digits3")
        out = call_well(*args)
        assert out.count("drawn (0: ") == 4
        assert "digits3 train_20pc: 60 samples drawn (0: 20, 1: 20, 2: 20)" in out
        path = Paths(tmp_path).tensors("digits3", "test")
        written = path.stat().st_ino
        assert call_well(*args).count("images up to date") == 4
        assert path.stat().st_ino == written
        assert "up to date" not in call_well(*args, "--overwrite")
        assert path.stat().st_ino != written

    def test_they_follow_their_index_files(self, tmp_path: Path):
        args = ("run_subset_generation", "--root", tmp_path, "--task", "digits3")
        call_well(*args)
        chosen = indices_of(DIGITS3, "train_50pc")[:2]
        path = Paths(tmp_path).indices("digits3", "train_10pc")
        path.write_text("".join(f"{i}\n" for i in chosen))
        out = call_well(*args)
        assert out.count("images up to date") == 3
        tensors = torch.load(Paths(tmp_path).tensors("digits3", "train_10pc"), weights_only=True)
        assert tensors["indices"].tolist() == chosen

    def test_new_indices(self, tmp_path: Path):
        args = ("run_subset_generation", "--root", tmp_path, "--task", "digits3")
        call_well(*args)
        call_well(*args, "--new_indices", "--seed", 7)
        drawn = Paths(tmp_path).indices("digits3", "train_10pc").read_text().split()
        expected = draw_indices(DIGITS3, "train_10pc", LABELS, 7)
        assert [int(i) for i in drawn] == expected.tolist()
        assert call_well(*args).count("images up to date") == 4


def test_new_indices_and_seed_go_together(tmp_path: Path):
    for args in (["--new_indices"], ["--seed", "3"]):
        call("run_subset_generation", "--root", tmp_path, *args).check_refused("go together")
