"""Finished pieces survive an interruption, and the result is that of an undisturbed run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from src.errors import DivergedError, UserError
from src.experiments import Paths, parse_experiment
from src.storage.files import load, save_together
from src.tda import estimator, scoring
from src.tda import pieces as partial_files
from src.tda.estimator import Draws, collect, each_checkpoint
from src.tda.pieces import PartialFile, Pieces
from tests.conftest import DIGITS
from tests.tools import call, call_well, tree

EXPERIMENT = parse_experiment(DIGITS)
IDENTITY = {"experiment": DIGITS, "method": "loo", "seed": 446}
SETTINGS = {"solver": "lissa"}
ITEMS = [*range(7)]


def pieces(path: Path, *, overwrite: bool = False, **settings: object) -> PartialFile:
    settings = {**SETTINGS, **settings}
    return PartialFile(path, IDENTITY, settings, make="make it", overwrite=overwrite)


def draws(held: Pieces) -> Draws:
    experiment = SimpleNamespace(kept_epochs=range(10, 15))
    return Draws(SimpleNamespace(experiment=experiment), 446, [{}] * 5, held)


def scored(items: list[int]) -> Tensor:
    return torch.tensor(items).float().expand(5, 2, -1).transpose(1, 2)


def in_twos(items: list[int], stop_before: int | None = None) -> Iterator[Tensor]:
    for start in range(0, len(items), 2):
        if stop_before in items[start : start + 2]:
            raise KeyboardInterrupt
        yield scored(items[start : start + 2])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A partial file of four of the seven items."""
    path = tmp_path / "446.partial.pt"
    with pytest.raises(KeyboardInterrupt):
        collect(draws(pieces(path)), ITEMS, lambda items: in_twos(items, stop_before=5), "")
    assert path.exists()
    return path


def test_only_the_rest_is_computed(path: Path, capsys: pytest.CaptureFixture):
    asked = []

    def compute(items: list[int]) -> Iterator[Tensor]:
        asked.append(items)
        return in_twos(items)

    assert torch.equal(collect(draws(pieces(path)), ITEMS, compute, "loo"), scored(ITEMS))
    assert asked == [[4, 5, 6]]
    assert capsys.readouterr().err.startswith("loo: going on from 4 of 7 members\n")


def test_nothing_is_left_to_compute(path: Path):
    held = pieces(path)
    collect(draws(held), ITEMS, in_twos, "")
    held.write()
    assert torch.equal(collect(draws(pieces(path)), ITEMS, None, ""), scored(ITEMS))


def test_checkpoints(tmp_path: Path):
    path, n_calls = tmp_path / "446.partial.pt", 0

    def compute(_: dict) -> tuple[Tensor, dict[str, Tensor]]:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 3:
            raise SystemExit
        return torch.tensor(n_calls), {"residual": torch.tensor(n_calls / 10)}

    with pytest.raises(SystemExit):
        each_checkpoint(draws(pieces(path)), compute, "")
    results = each_checkpoint(draws(pieces(path)), compute, "")
    assert [result[0].item() for result in results] == [1, 2, 4, 5, 6]
    assert [result[1]["residual"].item() for result in results] == pytest.approx(
        [0.1, 0.2, 0.4, 0.5, 0.6]
    )


def test_other_settings_are_refused(path: Path):
    with pytest.raises(UserError, match=r"446\.partial\.pt was made with other settings .*damp"):
        pieces(path, damp=0.1)
    assert pieces(path, damp=0.1, overwrite=True).done == []


def test_a_damaged_file_is_refused(path: Path):
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="is damaged"):
        pieces(path)
    assert pieces(path, overwrite=True).done == []


def test_pieces_in_memory_need_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    held = Pieces()
    with pytest.raises(KeyboardInterrupt):
        collect(draws(held), ITEMS, lambda items: in_twos(items, stop_before=5), "")
    assert torch.equal(collect(draws(held), ITEMS, in_twos, ""), scored(ITEMS))
    assert not list(tmp_path.iterdir())


def test_writing_takes_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With a clock that stands still except while a file is written, which takes a second."""
    now, n_written = 0.0, 0

    def save(*_: object) -> None:
        nonlocal now, n_written
        now, n_written = now + 1, n_written + 1

    monkeypatch.setattr(partial_files, "save", save)
    monkeypatch.setattr(partial_files.time, "monotonic", lambda: now)
    held = pieces(tmp_path / "446.partial.pt")
    for _ in range(200):
        held.add(torch.zeros(1))
        now += 1
    assert 3 <= n_written <= 5


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_piece_that_is_not_finite_is_not_kept(tmp_path: Path, value: float):
    path = tmp_path / "446.partial.pt"

    def chunks(items: list[int]) -> Iterator[Tensor]:
        chunk = scored(items[:2]).clone()
        chunk[2, 1, 0] = value
        yield chunk

    says = r"loo seed 446: epoch 12: 1 of 4 scores are not finite"
    with pytest.raises(DivergedError, match=says):
        collect(draws(pieces(path)), ITEMS, chunks, "loo seed 446")
    with pytest.raises(DivergedError, match=r"gd seed 446, epoch 10: 1 of 3 scores"):
        each_checkpoint(
            draws(pieces(path)),
            lambda _: (torch.zeros(2), torch.tensor([0, value, 1])),
            "gd seed 446",
        )
    assert not path.exists()


def test_what_is_known_beside_scores_may_be_infinite(tmp_path: Path):
    """The smallest curvature in no direction, for example."""
    piece = torch.zeros(2), {"curvature": torch.tensor([torch.inf])}
    held = pieces(tmp_path / "446.partial.pt")
    assert len(each_checkpoint(draws(held), lambda _: piece, "")) == 5


@pytest.mark.parametrize("scale", [100, 25, 1, 1e-9, 300])
def test_a_scale_at_which_lissa_diverges_leaves_nothing(digits_root: Path, copy_of, scale: float):
    """At 300 the first two checkpoints are well, and their pieces go too."""
    root = copy_of(digits_root)
    folder = Paths(root).scores(EXPERIMENT, "if", 446).parent
    for path in folder.iterdir():
        path.unlink()
    arguments = ("--root", root, "--experiment", DIGITS, "--seed_id", 0, "--damp", 0.01)
    result = call("run_if", *arguments, "--scale", scale)
    result.check_refused("if seed 446, epoch", f"--scale {scale:g} is too small", "try --scale")
    assert not list(folder.iterdir())


def test_not_finite_scores_of_an_earlier_partial_file_are_not_saved(
    digits_root: Path, copy_of, monkeypatch: pytest.MonkeyPatch
):
    root = copy_of(digits_root)
    paths = [Paths(root).scores(EXPERIMENT, method, 446) for method in ("gd", "gc")]
    for path in paths:
        path.unlink()
    monkeypatch.setattr(estimator, "require_finite", lambda _: None)
    monkeypatch.setattr(
        "src.tda.gradient_similarity.gradient_similarity",
        lambda *_, **__: (torch.zeros(30, 300), torch.full((30, 300), torch.nan)),
    )
    with monkeypatch.context() as patch:
        patch.setattr(
            PartialFile, "add", lambda self, piece: (self.done.append(piece), self.write())
        )
        patch.setattr(scoring, "score_content", None)  # so that it fails after the last piece
        with pytest.raises(TypeError):
            call("run_gd_and_gc", "--root", root, "--experiment", DIGITS, "--seed_id", 0)
    monkeypatch.undo()
    result = call("run_gd_and_gc", "--root", root, "--experiment", DIGITS, "--seed_id", 0)
    result.check_refused("not finite are 9,000 of 9,000 scores of piece 0", "--overwrite")
    assert not any(path.exists() for path in paths)


SCRIPTS = {"run_ats": "ats", "run_if": "if", "run_gd_and_gc": "gd"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_interrupted_scripts(
    digits_root: Path,
    copy_of: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    script: str,
):
    root, method = copy_of(digits_root), SCRIPTS[script]
    final = Paths(root).scores(EXPERIMENT, method, 446)
    expected = tree(final.parent)
    final.unlink()
    final.with_name(".446.abcd.tmp.pt").write_text("of a process that was killed")
    arguments = ("--root", root, "--experiment", DIGITS, "--seed_id", 0)
    add = PartialFile.add

    def add_and_stop(self: PartialFile, piece: object) -> None:
        add(self, piece)
        if len(self.done) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PartialFile, "add", add_and_stop)
        result = call(script, *arguments)
    assert result.code == 130, result
    assert [path.name for path in final.parent.iterdir()] == ["446.partial.pt"]
    if script == "run_if":
        call(script, *arguments, "--damp", 0.1).check_refused("partial.pt", "damp is 0.005")
    result = call(script, *arguments)
    assert result.code == 0, result
    assert "going on from" in result.err
    assert tree(final.parent) == expected


def test_a_partial_file_beside_a_whole_one_is_removed(digits_root: Path, copy_of):
    """Of a process that was killed between writing the one and removing the other."""
    root = copy_of(digits_root)
    partial = Paths(root).partial_scores(EXPERIMENT, "gd", 446)
    partial.write_text("anything")
    out = call_well("run_gd_and_gc", "--root", root, "--experiment", DIGITS, "--seed_id", 0)
    assert out.count("finished before") == 2
    assert not partial.exists()


def test_files_of_two_trainings_are_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paths = [tmp_path / f"ckpt_epoch_{epoch}.pt" for epoch in range(5)]
    save_together({path: {"training": "earlier"} for path in paths})
    n_replaced, replace = 0, Path.replace

    def replace_and_stop(self: Path, target: Path) -> None:
        nonlocal n_replaced
        n_replaced += 1
        if n_replaced == 3:
            raise KeyboardInterrupt
        replace(self, target)

    monkeypatch.setattr(Path, "replace", replace_and_stop)
    with pytest.raises(KeyboardInterrupt):
        save_together({path: {"training": "later"} for path in paths})
    left = list(tmp_path.iterdir())
    assert [load(path, "")["training"] for path in left] == ["later"] * 2


def test_a_training_that_was_killed_while_its_files_were_put_in_place(digits_root: Path, copy_of):
    root = copy_of(digits_root)
    first = Paths(root).checkpoint(EXPERIMENT, 446, EXPERIMENT.kept_epochs[0])
    expected = tree(first.parent)
    first.unlink()
    first.with_name(".ckpt_epoch_10.abcd.tmp.pt").write_text("left")
    call_well("run_cnn_training", "--root", root, "--experiment", DIGITS, "--seed_id", 0)
    assert tree(first.parent) == expected
