"""What the README and the notebook show works as it stands there."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from src.experiments import REPOSITORY

NOTEBOOK = REPOSITORY / "examples" / "own_model.ipynb"


def test_study_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    [block] = [block for block in blocks if "Study(" in block]
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert Path(capsys.readouterr().out.strip().splitlines()[-1]).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert (tmp_path / "report/accuracy_by_method.csv").is_file()


@pytest.fixture
def tests_go_on_in_no_notebook() -> Iterator[None]:
    """Whose sign is a package, which running one imports here, too (`src.progress`)."""
    yield
    sys.modules.pop("ipykernel", None)


@pytest.mark.usefixtures("tests_go_on_in_no_notebook")
def test_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    for variable in ("MPLBACKEND", "MATPLOTLIBRC"):  # which scripts set for themselves
        monkeypatch.delenv(variable, raising=False)
    folder = tmp_path / "examples"
    folder.mkdir()
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    said = [output["data"]["text/plain"] for output in outputs if "data" in output]
    assert "(3, 5, 30, 30)" in said[0]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert (tmp_path / "results/own-model/accuracy_by_method.csv").is_file()
    assert "Accuracy beside" in (tmp_path / "results/own-model/index.html").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"examples", "results"}
