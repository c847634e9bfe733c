"""Tasks and models of one's own through the scripts: what is refused, and what simply works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from src.experiments import MODELS, TASKS, Paths, parse_experiment
from src.experiments.definitions import VARIABLE, load_definitions
from src.launch.jobs import plan
from src.storage.files import load
from tests.experiments.test_definitions import WRONG
from tests.tools import Result, call, call_well, run_script, tree

HEAD = """import torch
from torch import nn
from src.experiments import register_model, register_task

def rows(n=24, classes=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % classes
    return torch.randn(n, 4, generator=g) + targets[:, None], targets

"""
TASK = """
def load():
    return {load}

register_task("own", load, n_per_class=3, n_test_per_class=2, epochs=2, n_checkpoints=2, {fields})
"""
MODEL = """
def factory(task):
    return {network}

register_model("net", factory, {fields})
"""
GOOD = '{"pool": rows()}'
NETWORK = "nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, task.n_classes))"
OWN = "net_own_3pc"


def definition(
    load: str = GOOD, fields: str = "", network: str = NETWORK, of_model: str = "", more: str = ""
) -> str:
    """Return a file that registers the task "own" and the model "net"."""
    task, model = TASK.format(load=load, fields=fields), MODEL.format
    return HEAD + more + task + model(network=network, fields=of_model)


@pytest.fixture(autouse=True)
def _forgotten():
    """Leave nothing registered."""
    known = [dict(registry) for registry in (MODELS, TASKS)]
    yield
    load_definitions([])
    assert [dict(registry) for registry in (MODELS, TASKS)] == known


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., Result]:
    """Returns a function that calls a script with a file's definitions."""

    def run(name: str, text: str, *arguments: object) -> Result:
        file = tmp_path / "own.py"
        file.write_text(text, encoding="utf-8")
        return call(name, "--define", file, "--root", tmp_path / "root", *arguments)

    return run


@pytest.mark.parametrize(("text", "says"), WRONG.values(), ids=WRONG)
def test_wrong_definitions(script: Callable, tmp_path: Path, text: str, says: str):
    script("run_subset_generation", text).check_refused(says, str(tmp_path / "own.py"))
    assert not (tmp_path / "root").exists()


WRONG_DATA = {
    "load fails": ("rows(3) @ 1", "line 12: load of task 'own': TypeError"),
    "load returns nothing": ("None", "load of task 'own' returns NoneType, not a dictionary"),
    "other splits": ("{'test': rows()}", "returns 'test', not a dictionary of 'train' and 'test'"),
    "no pairs": ("{'pool': rows()[0]}", "'pool' is not a pair of inputs and targets"),
    "other lengths": ("{'pool': (rows()[0], rows()[1][:-1])}", "[24, 4] and targets [23], not"),
    "NaN": (
        "{'pool': (rows()[0].index_fill(0, torch.tensor([7]), float('nan')), rows()[1])}",
        "load of task 'own', pool: the input of sample 7 is not finite, as are 1 of 24",
    ),
    "infinite values": ("{'pool': (rows()[0], rows()[1] / 0)}", "the target of sample 0 is not"),
    "words": ("{'pool': ([['a']], [0])}", "inputs are a list, not a tensor or an array of numbers"),
    "one number a sample": ("{'pool': (torch.zeros(24), rows()[1])}", "inputs are [24] and"),
    "rows of classes": ("{'pool': (rows()[0], rows()[1][:, None])}", "classes are (N,)"),
    "classes below 0": ("{'pool': (rows()[0], rows()[1] - 1)}", "sample 0 is of class -1, below"),
    "no samples": (
        "{'pool': (torch.zeros(0, 4), torch.zeros(0).long())}",
        "as many of both, one at least",
    ),
    "two shapes": (
        "{'train': rows(), 'test': (rows()[0][:, :3], rows()[1])}",
        "'test' holds float32 [3] with targets int64 [], 'train' float32 [4] with",
    ),
    "too few samples": ("{'pool': rows(13)}", "own train_3pc: class 1 has 2 samples that the test"),
    "too few values": ("{'pool': (rows(4)[0], rows(4)[1] / 2)}", "the source has 2 samples that"),
}
WRONG_FIELDS = {
    "too few outputs": ("n_classes=2", "has the label 2; own has 2 classes, numbered from 0"),
    "another shape": ("input_shape=(5,)", "has inputs of (4,); own takes (5,)"),
    "text": (
        "text=lambda row: 1 / 0",
        "text of task own cannot be made of a sample's inputs, of sh",
    ),
    "features": ("feature_names=('a', 'b')", "has inputs of (4,); own names 2 features"),
    "names": ("class_names=('a', 'b')", "has the label 2, which has no name in class_names of own"),
    "no such class": ("classes=(0, 5), n_classes=6", "class 5 has 0 samples"),
}


@pytest.mark.parametrize(("found", "says"), WRONG_DATA.values(), ids=WRONG_DATA)
def test_wrong_data(script: Callable, tmp_path: Path, found: str, says: str):
    script("run_subset_generation", definition(found)).check_refused(says)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(("fields", "says"), WRONG_FIELDS.values(), ids=WRONG_FIELDS)
def test_data_that_are_not_what_the_task_says(
    script: Callable, tmp_path: Path, fields: str, says: str
):
    script("run_subset_generation", definition(fields=fields)).check_refused(says)
    assert not (tmp_path / "root").exists()


def test_values_have_no_classes(script: Callable, tmp_path: Path):
    text = definition("{'pool': (rows()[0], rows()[1] / 2)}", "class_names=('a', 'b', 'c')")
    script("run_subset_generation", text).check_refused("values, and own speaks of classes")
    assert not (tmp_path / "root").exists()


WRONG_MODELS = {
    "fails": ("nn.Linear(task.n_rows, 3)", "", "line 17: model 'net' for task 'own': Attribute"),
    "no network": ("torch.zeros(3)", "", "its factory returns a Tensor, not an nn.Module"),
    "nothing to train": ("nn.Flatten()", "", "its network has no parameters that can be trained"),
    "another width": ("nn.Linear(4, 2)", "", "gives outputs [2, 2] for 2 samples of own, whose 3"),
    "other inputs": ("nn.Linear(5, 3)", "", "model 'net' on inputs [2, 4]: RuntimeError: mat1"),
    "two outputs": ("nn.LSTM(4, 3)", "", "model 'net' gives tuple for 2 inputs of own, not a row"),
    "the paper's": (NETWORK, "cnn2_own_3pc", "model 'cnn2' for task 'own': ValueError: not enough"),
}


@pytest.mark.parametrize(("network", "name", "says"), WRONG_MODELS.values(), ids=WRONG_MODELS)
def test_wrong_models(script: Callable, tmp_path: Path, network: str, name: str, says: str):
    text = definition(network=network)
    assert script("run_subset_generation", text).code == 0
    before = tree(tmp_path / "root")
    script("run_cnn_training", text, "--experiment", name or OWN).check_refused(says)
    assert tree(tmp_path / "root") == before


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("criterion=lambda o, y: o.mean()", "criterion of task 'own' gives [] for 2 samples"),
        ("measure=lambda o, y: o[:, 7]", "line 14: measure of task 'own': IndexError: index 7"),
        ("measure=lambda o, y: 3", "measure of task 'own' gives int for 2 samples"),
    ],
)
def test_wrong_functions(script: Callable, fields: str, says: str):
    text = definition(fields=fields)
    assert script("run_subset_generation", text).code == 0
    script("run_cnn_training", text, "--experiment", OWN).check_refused(says)


def test_a_vit_takes_images(script: Callable):
    text = definition()
    assert script("run_subset_generation", text).code == 0
    result = script("run_vit_finetuning", text, "--experiment", "vit_own_3pc", "--backbone", "tiny")
    result.check_refused("there is no recipe for a tiny backbone on images of own")


SHAPES = {  # images, classes, model
    "twelve classes": ((1, 28, 28), 12, "cnn2"),
    "larger": ((3, 48, 48), 2, "cnn2"),
    "grey of the size of colour": ((1, 32, 32), 2, "cnn3"),
    "not square": ((3, 30, 40), 3, "cnn3"),
}


@pytest.mark.parametrize(("shape", "n_classes", "model"), SHAPES.values(), ids=SHAPES)
def test_images_of_any_size(
    script: Callable, tmp_path: Path, shape: tuple[int, ...], n_classes: int, model: str
):
    n = 5 * n_classes
    text = definition(
        f"{{'pool': (torch.randint(256, ({n}, *{shape}), dtype=torch.uint8, "
        f"generator=torch.Generator().manual_seed(0)), torch.arange({n}) % {n_classes})}}"
    )
    assert script("run_subset_generation", text).code == 0
    name = ("--experiment", f"{model}_own_3pc", "--seed_id", 0)
    for training_or_scoring in ("run_cnn_training", "run_gd_and_gc"):
        result = script(training_or_scoring, text, *name)
        assert (result.code, result.err) == (0, ""), result
    folder = tmp_path / "root" / "tda_scores" / f"{model}_own_3pc"
    scores = load(folder / "gd" / "446.pt", "")["scores"]
    assert scores.shape == (2, 3 * n_classes, 2 * n_classes)
    assert scores.abs().max() > 0


def test_definitions_are_passed_on(script: Callable, tmp_path: Path):
    """In commands that messages tell, to jobs, and by the environment."""
    text = definition()
    file, root = tmp_path / "own.py", tmp_path / "root"
    result = script("run_cnn_training", text, "--experiment", OWN)
    result.check_refused(f"run_subset_generation.py --task own --root {root} --define {file}")
    result = run_script("run_subset_generation.py", "--root", root, **{VARIABLE: str(file)})
    assert result.code == 0, result
    load_definitions([file])
    jobs = plan([parse_experiment(OWN)], ["gd_and_gc"], [(0, 446)], root, [])
    for job in jobs:
        assert job.arguments[-2:] == ("--define", str(file))


def test_what_is_not_defined_any_more_is_not_known(script: Callable, tmp_path: Path):
    assert script("run_subset_generation", definition()).code == 0
    root = ("--root", tmp_path / "root")
    call("run_cnn_training", *root, "--experiment", OWN).check_refused(
        "unknown model 'net'", "or define it in a file that --define names"
    )


def test_relative_files_are_found_by_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "own.py").write_text(definition(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    call_well("run_subset_generation", "--define", "own.py", "--root", "root")
    assert "--define" in Paths(Path("root")).call("run_loo.py")
    assert str(tmp_path / "own.py") in Paths(Path("root")).call("run_loo.py")


def test_a_changed_model_is_noticed(script: Callable, tmp_path: Path):
    name = ("--experiment", OWN, "--seed_id", 0)
    network = NETWORK.replace("nn.Tanh()", "nn.Sequential(nn.Tanh())")
    text = definition(network=network)
    assert script("run_subset_generation", text).code == 0
    assert script("run_cnn_training", text, *name).code == 0
    before = tree(tmp_path / "root")
    changed = {
        "activation": network.replace("Tanh", "ReLU"),
        "dropout": network.replace("nn.Tanh()", "nn.Tanh(), nn.Dropout(0.3)"),
        "initialisation": f"nn.init.zeros_((m := {network})[0].bias) is None or m",
        "outputs": network.replace("nn.Linear(5, task.n_classes)", "nn.Linear(5, 3), Doubled()"),
    }
    more = "class Doubled(nn.Module):\n    def forward(self, x):\n        return 2 * x\n"
    for what, network in changed.items():
        other = definition(network=network, more=more)
        for name_of_script in ("run_gd_and_gc", "run_cnn_training"):
            result = script(name_of_script, other, *name)
            assert "another one than" in result.err, (what, result)
            result.check_refused("model 'net' is another one than", "--overwrite")
    assert tree(tmp_path / "root") == before
    same = "# what it is\n" + text.replace("def factory(task):", "def factory(task):  # a net\n")
    assert script("run_gd_and_gc", same, *name).code == 0


def test_a_changed_criterion_or_measure_is_noticed(script: Callable):
    name = ("--experiment", OWN, "--seed_id", 0)

    def own(power: str, sign: str) -> str:
        more = (
            "def criterion(o, y):\n"
            f"    return nn.functional.cross_entropy(o, y, reduction='none') ** {power}\n"
            "def measure(o, y):\n"
            f"    return {sign}o.gather(1, y[:, None]).squeeze(1)\n"
        )
        return definition(fields="criterion=criterion, measure=measure", more=more)

    text = own("1", "-")
    assert script("run_subset_generation", text).code == 0
    assert script("run_cnn_training", text, *name).code == 0
    assert script("run_gd_and_gc", text, *name).code == 0
    assert "finished before" in script("run_gd_and_gc", "# the same\n" + text, *name).out
    script("run_gd_and_gc", own("2", "-"), *name).check_refused("other settings (criterion is [")
    script("run_gd_and_gc", own("1", ""), *name).check_refused("other settings (measure is [")


@pytest.mark.slow
def test_values_of_one_s_own(script: Callable, tmp_path: Path):
    """Squared error: counts are of samples in all, and nothing speaks of classes."""
    text = definition(
        "{'pool': (rows(60)[0], rows(60)[0].sum(1).sin())}",
        network="nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))",
    ).replace("n_per_class=3, n_test_per_class=2", "n_per_class=9, n_test_per_class=5")
    assert "drawn, inputs from" in script("run_subset_generation", text).out
    name = ("--experiment", "net_own_9pc", "--seed_id", "0,1")
    for each in ("run_cnn_training", "run_loo", "run_ats", "run_if", "run_gd_and_gc"):
        result = script(each, text, *name)
        assert (result.code, result.err) == (0, ""), result
    for each in ("run_pvalues", "run_correlations"):
        result = script(each, text, "--experiment", "net_own_9pc", "--allow_missing")
        assert result.code == 0, result
    results = tmp_path / "root" / "results" / "net_own_9pc"
    page = (results / "index.html").read_text(encoding="utf-8")
    assert "class" not in page.split("What was run")[1].split("<script")[0].replace("class=", "")
    assert (
        (results / "pairs.csv").read_text().startswith('"train_index","test_index","train_value"')
    )
    scores = load(tmp_path / "root" / "tda_scores" / "net_own_9pc" / "loo" / "446.pt", "")["scores"]
    assert scores.shape == (2, 9, 5)
    assert torch.isfinite(scores).all()
