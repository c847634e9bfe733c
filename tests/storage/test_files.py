"""Files are whole or not there, and made with the settings that were asked for."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch

from src.errors import UserError
from src.storage.files import (
    check_finite,
    check_settings,
    digest,
    load,
    save,
    write_atomically,
)
from tests.tools import tree

CONTENT = {
    "scores": torch.arange(12.0).reshape(3, 4),
    "nested": {"step": torch.tensor(3), "list": [1, 2.5, None, "text"]},
    "settings": {"damp": 5e-3, "solver": "lissa"},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that was saved."""
    path = tmp_path / "a" / "b.pt"
    save(path, CONTENT)
    return path


def test_save_and_load(path: Path):
    found = load(path, "make it")
    assert digest(found) == digest(CONTENT)
    assert torch.equal(found["scores"], CONTENT["scores"])
    assert "checksum" in torch.load(path, weights_only=True)


def test_nothing_but_the_file_is_left(path: Path):
    assert list(tree(path.parent)) == ["b.pt"]


def test_files_have_the_usual_rights(path: Path):
    plain = path.parent / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_write_that_fails_leaves_the_earlier_file(path: Path):
    before = tree(path.parent)

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write .*b\.pt: No space left on device"):
        write_atomically(path, write)
    assert tree(path.parent) == before


def test_an_interrupted_write_leaves_the_earlier_file(path: Path):
    before = tree(path.parent)

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, write)
    assert tree(path.parent) == before


def test_only_the_renaming_touches_the_earlier_file(path: Path, monkeypatch: pytest.MonkeyPatch):
    before = tree(path.parent)

    def replace(_: Path, target: Path) -> None:
        assert before.items() <= tree(path.parent).items()
        raise OSError(5, f"no renaming to {target.name}")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(UserError, match=r"no renaming to b\.pt"):
        save(path, {"other": 1})
    assert tree(path.parent) == before


def test_the_file_is_not_there_while_it_is_written(tmp_path: Path):
    path = tmp_path / "table.csv"

    def write(temporary: Path) -> None:
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".csv"
        temporary.write_text("whole")

    write_atomically(path, write)
    assert path.read_text() == "whole"


def test_a_programming_error_is_not_disguised(path: Path):
    def write(_: Path) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        write_atomically(path, write)


def test_a_folder_that_is_a_file(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot write"):
        save(tmp_path / "file" / "b.pt", CONTENT)
    assert tree(tmp_path).keys() == {"file"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_is_read_only(path: Path):
    before = tree(path.parent)
    path.parent.chmod(0o555)
    try:
        with pytest.raises(UserError, match=r"cannot write .*Permission denied"):
            save(path, {"other": 1})
    finally:
        path.parent.chmod(0o755)
    assert tree(path.parent) == before


def test_a_missing_file_names_the_command(tmp_path: Path):
    with pytest.raises(UserError, match=r"no\.pt does not exist; make it with: make it so"):
        load(tmp_path / "no.pt", "make it so")


def test_a_truncated_file_is_damaged(path: Path):
    whole = path.read_bytes()
    for length in range(0, len(whole), 61):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="is damaged; make it again with: make it --overwrite"):
            load(path, "make it")


def test_a_flipped_bit_is_noticed_wherever_it_matters(path: Path):
    """An archive has bytes of no meaning, such as padding: then the content is the same."""
    whole, expected, noticed = path.read_bytes(), digest(CONTENT), 0
    for position in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            assert digest(load(path, "make it")) == expected
        except UserError as error:
            assert "damaged" in str(error) or "checksum" in str(error)  # noqa: PT017
            noticed += 1
    assert noticed > 0


def test_changed_numbers_are_noticed(path: Path):
    """A file that torch reads well, with another content than its checksum's."""
    content = torch.load(path, weights_only=True)
    content["scores"][1, 2] += 1e-6
    torch.save(content, path)
    with pytest.raises(UserError, match="is damaged"):
        load(path, "make it")


@pytest.mark.parametrize("foreign", [torch.zeros(3), {"scores": torch.zeros(3)}])
def test_files_of_others_are_refused(tmp_path: Path, foreign: object):
    torch.save(foreign, tmp_path / "foreign.pt")
    with pytest.raises(UserError, match="no checksum, so is not this project's"):
        load(tmp_path / "foreign.pt", "make it")


def test_pickled_code_is_not_run(tmp_path: Path):
    class Harm:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / "harm"),))

    torch.save({"checksum": "", "x": Harm()}, tmp_path / "harmful.pt")
    with pytest.raises(UserError):
        load(tmp_path / "harmful.pt", "make it")
    assert not (tmp_path / "harm").exists()


class TestDigest:
    """Equal for equal contents, whatever the order of keys; different for all others."""

    def test_order_and_layout_do_not_matter(self):
        a = torch.arange(24.0).reshape(1, 2, 3, 4)
        assert digest({"a": a, "b": 1}) == digest(
            {"b": 1, "a": a.contiguous(memory_format=torch.channels_last)}
        )

    @pytest.mark.parametrize(
        ("a", "b"),
        [
            (torch.zeros(2), torch.zeros(3)),
            (torch.zeros(2, 3), torch.zeros(3, 2)),
            (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
            (torch.zeros(2), torch.tensor([0, 1e-40])),
            ({"a": 1}, {"a": "1"}),
            ({"a": 1}, {"b": 1}),
            (["ab", "c"], ["a", "bc"]),
            ([[1], 2], [[1, 2]]),
            ({"a": 1.0}, {"a": 1}),
            ({"a": None}, {}),
        ],
    )
    def test_differences(self, a: object, b: object):
        assert digest(a) != digest(b)


class TestSettings:
    """What decides the numbers must be what was asked for."""

    def test_the_same(self, path: Path):
        check_settings(path, {"damp": 1, "solver": "cg"}, {"solver": "cg", "damp": 1}, "make it")

    def test_differences_are_named(self, path: Path):
        wanted = {"damp": 1e-3, "solver": "lissa", "scale": 10}
        says = r"damp is 0\.005, now 0\.001; scale is None, now 10.*with: make it --overwrite"
        with pytest.raises(UserError, match=says):
            check_settings(path, CONTENT["settings"], wanted, "make it")

    @pytest.mark.parametrize("found", [torch.ones(2), "1", 1.0, True])
    def test_types_count(self, path: Path, found: object):
        with pytest.raises(UserError, match="damp is .*, now 1"):
            check_settings(path, {"damp": found}, {"damp": 1}, "make it")


class TestIdentity:
    """A file says what it is, whatever its path."""

    @pytest.fixture
    def scores(self, tmp_path: Path) -> Path:
        """A file that says one thing at the top and one among its settings."""
        save(tmp_path / "x.pt", {"method": "gd", "settings": {"seed": 446}, "scores": 1})
        return tmp_path / "x.pt"

    def test_the_right_one(self, scores: Path):
        found = load(scores, "make", identity={"method": "gd", "seed": 446}, holds=["scores"])
        assert found["scores"] == 1

    def test_another(self, scores: Path):
        says = (
            "x.pt says that it is method gd, seed 446, where method gd, seed 724 belongs: "
            "put the right file back, or make it again with: make --overwrite"
        )
        with pytest.raises(UserError, match=re.escape(says)):
            load(scores, "make", identity={"method": "gd", "seed": 724})

    @pytest.mark.parametrize("seed", [446.0, "446", torch.tensor([446, 446])])
    def test_types_count(self, scores: Path, seed: object):
        save(scores, {"seed": seed})
        with pytest.raises(UserError, match="where seed 446 belongs"):
            load(scores, "make", identity={"seed": 446})

    def test_one_that_does_not_say(self, scores: Path):
        for wanted in ({"identity": {"method": "gd", "epoch": 3}}, {"holds": ("scores", "epoch")}):
            with pytest.raises(UserError, match=r"does not hold epoch, .* make --overwrite"):
                load(scores, "make", **wanted)

    def test_settings_that_are_none(self, scores: Path):
        save(scores, {"method": "gd", "settings": 3})
        with pytest.raises(UserError, match="does not hold method"):
            load(scores, "make", identity={"method": "gd"})


def test_numbers_that_are_not_finite_are_counted(path: Path):
    values = torch.zeros(2, 3)
    check_finite(path, "scores", values, "make it")
    values[1, 0], values[1, 2] = torch.nan, -torch.inf
    says = "b.pt: not finite are 2 of 6 scores, the first (nan) at "
    axes = {"epoch": [10, 11], "test index": [5, 6, 7]}
    for names, where in ((None, "position [1, 0]"), (axes, "epoch 11, test index 5")):
        with pytest.raises(UserError, match=re.escape(f"{says}{where}: make it again with: make")):
            check_finite(path, "scores", values, "make it", names)
