"""Files of one's own that register models and tasks: what they make known, and what is refused."""

from __future__ import annotations

import sys

import pytest

from src.errors import UserError
from src.experiments import MODELS, TASKS, parse_experiment
from src.experiments.definitions import VARIABLE, files_of_environment, load_definitions

HEAD = "from src.experiments import register_model, register_task\n"
GOOD = HEAD + (
    "register_task('own-rows', lambda: {}, n_per_class=(3, 4), n_test_per_class=2, epochs=7)\n"
    "register_model('mine2', lambda task: None, learning_rate=0.1, optimizer='sgd', momentum=0.9)\n"
)


@pytest.fixture(autouse=True)
def _registries_stay():
    """Leave what is known as it was."""
    known = [dict(registry) for registry in (MODELS, TASKS)]
    yield
    for registry, before in zip((MODELS, TASKS), known, strict=True):
        registry.clear()
        registry.update(before)


@pytest.fixture
def define(tmp_path):
    """Returns a function that loads a file with the given text."""

    def load(text: str, name: str = "own.py"):
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        return load_definitions([file])

    return load


def test_registered_names_are_experiments(define):
    define(GOOD)
    experiment = parse_experiment("mine2_own-rows_4pc_init")
    assert experiment.name == "mine2_own-rows_4pc_init"
    chosen = experiment.hyperparameters
    assert (chosen.epochs, chosen.learning_rate, chosen.optimizer) == (7, 0.1, "sgd")
    assert experiment.kept_epochs == (2, 3, 4, 5, 6)
    assert experiment.training_settings()["momentum"] == 0.9
    assert parse_experiment("cnn2_own-rows_3pc").hyperparameters.learning_rate == 1e-3


def test_the_model_says_more_than_the_task(define):
    define(GOOD + "register_model('long', lambda task: None, epochs=30, n_checkpoints=2)\n")
    assert parse_experiment("long_own-rows_3pc").kept_epochs == (28, 29)


def test_a_file_that_is_loaded_again_takes_its_own_place(define):
    define(GOOD)
    define(GOOD.replace("epochs=7", "epochs=9"))
    assert parse_experiment("mine2_own-rows_4pc").epochs == 9
    define(GOOD.replace("own-rows", "others"))
    assert "own-rows" not in TASKS


def test_a_file_may_import_what_lies_beside_it(define, tmp_path):
    (tmp_path / "beside_it.py").write_text("EPOCHS = 11\n")
    define("from beside_it import EPOCHS\n" + GOOD.replace("epochs=7", "epochs=EPOCHS"))
    assert parse_experiment("mine2_own-rows_4pc").epochs == 11
    assert str(tmp_path) not in sys.path


def test_files_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert files_of_environment() == []
    monkeypatch.setenv(VARIABLE, f"{tmp_path}/a.py:{tmp_path}/b.py")
    assert files_of_environment() == [tmp_path / "a.py", tmp_path / "b.py"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, "a.py:b.py")
    files_of_environment()
    monkeypatch.chdir(tmp_path.parent)  # as a job is
    assert files_of_environment() == [tmp_path / "a.py", tmp_path / "b.py"]


def task(**changes: str) -> str:
    """Return a file that registers a task with some arguments changed."""
    arguments = {"name": "'t'", "load": "lambda: {}", "n_per_class": "3", "n_test_per_class": "2"}
    given = ", ".join(f"{key}={value}" for key, value in {**arguments, **changes}.items())
    return f"{HEAD}register_task({given})\n"


def model(**changes: str) -> str:
    """Return a file that registers a model with some arguments changed."""
    given = {"name": "'m'", "factory": "lambda task: None", **changes}
    return HEAD + f"register_model({', '.join(f'{k}={v}' for k, v in given.items())})\n"


WRONG = {
    "a module that is not there": ("import nowhere", "line 1: ModuleNotFoundError: No module"),
    "no Python": ("x = (", "line 1: '(' was never closed"),
    "an error of its own": ("x = 1\nx / 0\n", "line 2: ZeroDivisionError: division by zero"),
    "an end of its own": ("raise SystemExit('bye')", "line 1: SystemExit: bye"),
    "nothing registered": ("x = 1", "registers nothing: it has to call register_model or"),
    "known task": (task(name="'mnist3'"), "task 'mnist3' is there already (digits3, mnist3"),
    "known model": (model(name="'vit'"), "model 'vit' is there already (cnn2, cnn3, vit)"),
    "twice": (model() + model(), "model 'm' is there already"),
    "underscore in a task": (task(name="'a_b'"), "task 'a_b': a name holds letters, digits"),
    "hyphen at the end": (model(name="'m-'"), "model 'm-': a name holds letters, digits"),
    "a path": (task(name="'../t'"), "task '../t': a name holds letters, digits"),
    "no text": (model(name="3"), "model 3: a name holds letters, digits"),
    "wrong field": (task(epoch="3"), "task 't' has no field 'epoch': choose from batch_size"),
    "wrong field of a model": (
        model(lr="3"),
        "model 'm': there is no field 'lr': choose from epochs",
    ),
    "no data": (task(load="None"), "task 't' has no data: give load, repository or folder"),
    "two sources": (task(repository="'a/b'"), "task 't': its data come from load and repository"),
    "load is no function": (task(load="3"), "task 't': load is 3, not a function"),
    "a path for a repository": (task(load="None", repository="'/a/b'"), "is given as folder"),
    "no size": (task(n_per_class="()"), "task 't': n_per_class is (), not different numbers"),
    "size 0": (task(n_per_class="(3, 0)"), "task 't': n_per_class is (3, 0), not different"),
    "no test samples": (task(n_test_per_class="0"), "task 't': n_test_per_class is 0, not a"),
    "classes": (task(classes="('a', 'b')"), "task 't': classes are ('a', 'b'), not different"),
    "criterion": (task(criterion="'mse'"), "task 't': criterion is 'mse', not a function"),
    "no factory": (model(factory="None"), "model 'm' has no factory: give a function of a task"),
    "factory": (model(factory="3"), "model 'm': its factory is 3, not a function of a task"),
    "epochs": (task(epochs="0"), "task 't': epochs is 0, not a whole number of at least 1"),
    "fewer epochs than are kept": (task(epochs="4"), "task 't': epochs is 4, not 5 or more"),
    "true is no number": (task(epochs="True"), "task 't': epochs is True, not a whole"),
    "learning rate": (model(learning_rate="0"), "model 'm': learning_rate is 0, not a number"),
    "not finite": (model(weight_decay="float('inf')"), "model 'm': weight_decay is inf, not a"),
    "optimiser": (model(optimizer="'lion'"), "model 'm': optimizer is 'lion': choose from adam"),
}


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        (task(epochs="6") + model(n_checkpoints="7"), "m_t_3pc", "last 7 epochs and trains 6"),
        (task() + model(momentum="0.9"), "m_t_3pc", "no effect with optimizer 'adam'"),
    ],
)
def test_hyperparameters_that_do_not_go_together(define, text, name, says):
    define(text)
    with pytest.raises(UserError, match=says):
        parse_experiment(name)


def test_a_file_that_is_not_there(tmp_path):
    for name in ("no.py", "."):
        with pytest.raises(UserError, match="does not exist: --define takes a Python file"):
            load_definitions([tmp_path / name])
    (tmp_path / "text.txt").write_text("x")
    with pytest.raises(UserError, match="is no Python file"):
        load_definitions([tmp_path / "text.txt"])
