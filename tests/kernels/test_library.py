"""Compiling the kernels, and going on without them."""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from src.experiments import REPOSITORY
from src.kernels import library
from src.kernels.fuse import fuse
from src.kernels.library import are_there, build
from src.models.cnn import CNN2

needs_compiler = pytest.mark.skipif(not are_there(torch.float32), reason="needs a C++ compiler")

_OTHER_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source that is compiled in no time, with a header beside it."""
    (tmp_path / "one.h").write_text("inline int one() { return 1; }\n")
    (tmp_path / "one.cpp").write_text(
        '#include "one.h"\nextern "C" int two() { return 2 * one(); }\n'
    )
    return tmp_path / "one.cpp"


@pytest.fixture
def expected() -> float:
    """The answer of this process; asked for first, before anything is changed."""
    return answer()


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the kernels are kept within the test, by a process that has not asked for any yet."""
    monkeypatch.setattr(library, "_library", functools.cache(library._library.__wrapped__))
    monkeypatch.setattr(library, "BUILT", tmp_path / "built")
    return tmp_path / "built"


def answer() -> float:
    """Return what a network computes, with kernels where there are any."""
    torch.manual_seed(0)
    with torch.no_grad():
        return fuse(CNN2((1, 28, 28), 10))(torch.rand(2, 1, 28, 28)).sum().item()


@needs_compiler
def test_built_once(source: Path, tmp_path: Path):
    file = build(source, "float", tmp_path / "built")
    time = file.stat().st_mtime_ns
    assert build(source, "float", file.parent) == file
    assert file.stat().st_mtime_ns == time
    assert list(file.parent.iterdir()) == [file]


@needs_compiler
@pytest.mark.parametrize("changed", ["one.cpp", "one.h"])
def test_another_source_is_another_library(source: Path, tmp_path: Path, changed: str):
    before = build(source, "float", tmp_path / "built")
    with (tmp_path / changed).open("a") as file:
        file.write("// changed\n")
    assert build(source, "float", tmp_path / "built").name != before.name


@needs_compiler
def test_two_processes_build_at_once(source: Path, tmp_path: Path):
    with multiprocessing.get_context("fork").Pool(2) as processes:
        found = processes.starmap(_built, [(source, tmp_path / "built")] * 2)
    assert found[0] == found[1] == (*(tmp_path / "built").iterdir(), 2)


def _built(source: Path, folder: Path) -> tuple[Path, int]:
    """Return a library that is built, and what its function returns."""
    file = build(source, "float", folder)
    return file, ctypes.CDLL(str(file)).two()


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false", "'g++"])
def test_without_a_compiler_it_goes_on(
    expected: float,
    built: Path,
    compiler: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    """With one line that says so, and the same numbers."""
    monkeypatch.setenv("CXX", compiler)
    assert answer() == pytest.approx(expected, rel=1e-5)
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert said.startswith("kernels.cpp was not compiled (")
    assert not built.exists() or not any(built.iterdir())


@needs_compiler
def test_a_folder_that_cannot_be_written(
    built: Path,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    """As in a read-only clone: they are kept in the person's cache."""
    built.touch()
    monkeypatch.setattr(library, "SOURCE", source)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert are_there(torch.float32)
    assert capsys.readouterr().err == ""
    assert len([*(tmp_path / "tda-kernels").glob("one-*.so")]) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(built))
    assert not are_there(torch.float64)
    assert len(capsys.readouterr().err.splitlines()) == 1


@needs_compiler
def test_a_locale_that_is_not_utf8(tmp_path: Path):
    code = (
        "import torch; from src.kernels.library import are_there; print(are_there(torch.float32))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, **_OTHER_LOCALE},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (found.stdout, found.stderr) == ("True\n", "")
