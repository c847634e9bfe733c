"""The estimator of docs/estimators.md, put where it says, in the scripts and on pages."""

import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from src.errors import UserError
from src.experiments import REPOSITORY, Paths, parse_experiment
from src.models import build
from src.tda.estimator import Draws, Scores, compute
from tests.conftest import DIGITS

ENTRIES = "METHODS: dict[str, Method] = {\n    method.name: method\n    for method in (\n"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A copy of the code with the module and the entry of the document."""
    copy = tmp_path_factory.mktemp("code") / "repository"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "src", copy / "src", ignore=ignore)
    for file in (*REPOSITORY.glob("run_*.py"), REPOSITORY / "random_seeds.pt"):
        shutil.copy(file, copy)
    module, entry = re.findall(
        r"```python\n(.*?)```", (REPOSITORY / "docs/estimators.md").read_text("utf-8"), re.DOTALL
    )
    name = re.match(r"# (src/\S+)", module)[1]
    (copy / name).write_text(module, "utf-8")
    registry = copy / "src/experiments/methods.py"
    text = registry.read_text("utf-8")
    assert text.count(ENTRIES) == 1
    registry.write_text(text.replace(ENTRIES, f"{ENTRIES}{entry.rstrip()},\n"), "utf-8")
    return copy


def test_it_stands_beside_the_others(repository, digits_root, copy_of):
    root = copy_of(digits_root)

    def call(script, *arguments):
        command = [sys.executable, repository / script, "--root", root, "--experiment", DIGITS]
        run = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        return run.stdout

    call("run_estimators.py", "--method", "outputs", "--seed_id", "0-1", "--outputs_power", "1")
    paths, experiment = Paths(root), parse_experiment(DIGITS)
    found = torch.load(paths.scores(experiment, "outputs", 446), weights_only=True)
    assert found["settings"]["outputs_power"] == 1
    model = build(experiment).eval()
    model.load_state_dict(
        torch.load(paths.checkpoint(experiment, 446, 14), weights_only=True)["model_state_dict"]
    )
    train, test = (
        F.normalize(model(tensors["images"].float() / 255), dim=1)
        for name in ("train_10pc", "test")
        for tensors in [torch.load(paths.tensors("digits3", name), weights_only=True)]
    )
    torch.testing.assert_close(found["scores"][-1], (train @ test.T).detach(), atol=1e-4, rtol=0)

    done = call("run_parallel.py", "--methods", "outputs", "--seed_id", "0-1", "--workers", "1")
    assert "4 of 4 jobs were done before" in done
    call("run_pvalues.py", "--methods", "outputs", "inputs", "--seed_id", "0-1", "--allow_missing")
    table = pd.read_csv(paths.results(experiment) / "mean_pvalues.csv")
    assert "outputs" in table.columns


def test_scores_that_are_not_of_all_pairs_are_refused():
    class Turned:
        def __call__(self, draws):
            return {"turned": Scores(torch.zeros(2, 4, 3))}

    draws = Draws(SimpleNamespace(scored=range(3), test=range(4)), 446, [{}, {}])
    with pytest.raises(UserError, match=r"Turned returns turned scores of shape \(2, 4, 3\), not"):
        compute(Turned(), draws)
