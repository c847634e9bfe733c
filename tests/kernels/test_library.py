"""Compiling the kernels, and going on without them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from src.experiments import REPOSITORY
from src.kernels.library import BUILT, are_there, build

needs_compiler = pytest.mark.skipif(not are_there(torch.float32), reason="needs a C++ compiler")

SCRIPT = """
import torch
from src.kernels import library
library.BUILT = library.Path({folder!r})
from src.kernels.fuse import fuse
from src.models.cnn import CNN2
torch.manual_seed(0)
with torch.no_grad():
    print(fuse(CNN2((1, 28, 28), 10))(torch.rand(2, 1, 28, 28)).sum().item())
"""


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", SCRIPT.format(folder=str(folder))]
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source that is compiled in no time, with a header beside it."""
    (tmp_path / "one.h").write_text("inline int one() { return 1; }\n")
    (tmp_path / "one.cpp").write_text('#include "one.h"\nint two() { return 2 * one(); }\n')
    return tmp_path / "one.cpp"


@pytest.fixture(scope="module")
def answer() -> float:
    """What the script prints, with kernels where there is a compiler."""
    return float(run(BUILT).stdout)


@needs_compiler
def test_built_once(source: Path, tmp_path: Path):
    library = build(source, "float", tmp_path / "built")
    built = library.stat().st_mtime_ns
    assert build(source, "float", library.parent) == library
    assert library.stat().st_mtime_ns == built
    assert list(library.parent.iterdir()) == [library]


@needs_compiler
@pytest.mark.parametrize("changed", ["one.cpp", "one.h"])
def test_another_source_is_another_library(source: Path, tmp_path: Path, changed: str):
    library = build(source, "float", tmp_path / "built")
    with (tmp_path / changed).open("a") as file:
        file.write("// changed\n")
    assert build(source, "float", tmp_path / "built").name != library.name


@needs_compiler
def test_two_processes_build_at_once(tmp_path: Path):
    command = [sys.executable, "-c", SCRIPT.format(folder=str(tmp_path / "built"))]
    processes = [
        subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    answers = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert len(set(answers)) == 1
    assert answers[0][1] == b""


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false", "'g++"])
def test_without_a_compiler_it_goes_on(tmp_path: Path, answer: float, compiler: str):
    """With one line that says so, and the same numbers."""
    found = run(tmp_path / "built", CXX=compiler)
    assert len(found.stderr.splitlines()) == 1
    assert found.stderr.startswith("kernels.cpp was not compiled (")
    assert float(found.stdout) == pytest.approx(answer, rel=1e-5)


@needs_compiler
def test_a_folder_that_cannot_be_written(tmp_path: Path):
    """As in a read-only clone: the kernels, and so the numbers, are the same."""
    (tmp_path / "file").touch()
    found = run(tmp_path / "file" / "built", XDG_CACHE_HOME=str(tmp_path))
    assert found.stderr == ""
    assert len([*(tmp_path / "tda-kernels").glob("kernels-*.so")]) == 1
    nowhere = run(tmp_path / "file" / "built", XDG_CACHE_HOME=str(tmp_path / "file"))
    assert len(nowhere.stderr.splitlines()) == 1


@needs_compiler
def test_a_locale_that_is_not_utf8(tmp_path: Path):
    found = run(BUILT, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert found.stderr == ""
