"""Files are whole or not there, and made with the settings that were asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from src.errors import UserError
from src.storage import digest, is_finished, load, save, write_atomically
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
        with pytest.raises(UserError, match="is damaged; delete it.*make it"):
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
    with pytest.raises(UserError, match="no checksum, so not this project's"):
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


class TestIsFinished:
    """A file is finished when its settings are those asked for."""

    def test_the_same_settings(self, path: Path):
        assert is_finished(path, CONTENT["settings"], make="make it", overwrite=False)

    def test_overwriting(self, path: Path):
        path.write_bytes(b"damaged")
        assert not is_finished(path, {}, make="make it", overwrite=True)

    def test_no_file(self, tmp_path: Path):
        assert not is_finished(tmp_path / "no.pt", {}, make="make it", overwrite=False)

    def test_other_settings_are_named(self, path: Path):
        wanted = {"damp": 1e-3, "solver": "lissa", "scale": 10}
        says = r"damp is 0\.005, now 0\.001; scale is None, now 10.*--overwrite"
        with pytest.raises(UserError, match=says):
            is_finished(path, wanted, make="make it", overwrite=False)

    def test_a_damaged_file(self, path: Path):
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(UserError, match="is damaged"):
            is_finished(path, CONTENT["settings"], make="make it", overwrite=False)
