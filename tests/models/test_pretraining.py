"""The tiny backbone: what it was pre-trained on is recorded, and none of it is the task's."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from src.experiments import TASKS, Paths
from src.models.pretraining import RECIPES
from src.models.seen import RECORD, fingerprints
from src.storage.files import load, save
from tests.tools import Result, call, call_well, tree

# Of all classes, so that its backbone is pre-trained on the images outside of its subsets.
DIGITS10 = replace(
    TASKS["digits3"],
    name="digits10",
    classes=tuple(range(10)),
    n_per_class=(3,),
    n_test_per_class=5,
    hyperparameters={"epochs": 5},
)
DIGITS345 = replace(DIGITS10, name="digits345", classes=(3, 4, 5))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPES["digits"], epochs=1, hidden_size=12, n_layers=1, intermediate_size=8)
    monkeypatch.setitem(RECIPES, "digits", recipe)
    for task in (DIGITS10, DIGITS345):
        monkeypatch.setitem(TASKS, task.name, task)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with the tensors of both tasks."""
    call_well("run_subset_generation", "--root", tmp_path, "--task", "digits10", "digits345")
    return tmp_path


def finetune(root: Path, task: str, *options: object) -> Result:
    arguments = ("--root", root, "--experiment", f"vit_{task}_3pc", "--seed_id", 0)
    return call("run_vit_finetuning", *arguments, "--backbone", "tiny", *options)


def finetune_well(root: Path, task: str, *options: object) -> str:
    """Return what is said of the backbone."""
    result = finetune(root, task, *options)
    assert (result.code, result.err) == (0, ""), result
    return result.out.splitlines()[0]


def folder(root: Path, task: str) -> Path:
    return Paths(root).tiny_backbone(task)


def n_seen(root: Path, backbone_of: str, task: str) -> int:
    """Return how many images of a task's subsets a backbone was pre-trained on."""
    seen = load(folder(root, backbone_of) / RECORD, "")["seen"]
    images = [
        load(Paths(root).tensors(task, split), "")["images"] for split in ("train_3pc", "test")
    ]
    return int(torch.isin(fingerprints(torch.cat(images)), seen).sum())


def test_fingerprints_tell_images_apart():
    images = torch.randint(256, (50, 1, 28, 28), dtype=torch.uint8)
    images[7] = images[3]
    found = fingerprints(images)
    assert found[7] == found[3]
    assert len(found.unique()) == 49


def test_what_is_said_is_recorded_and_true(root: Path):
    said = finetune_well(root, "digits10")
    record = load(folder(root, "digits10") / RECORD, "")
    assert f"on {len(record['seen'])} images of scikit-learn's bundled digits" in said
    assert n_seen(root, "digits10", "digits10") == 0
    # Of 1797 images 80 are in the subsets; a fifth of what is there is held out.
    assert len(record["seen"]) + record["n_held_out"] == 1797 - 80
    again = finetune_well(root, "digits10")
    assert "was pre-trained before" in again
    assert again.split("on", 1)[1].split("images")[1] == said.split("on", 1)[1].split("images")[1]


def test_new_indices(root: Path):
    finetune_well(root, "digits10")
    options = ("--new_indices", "--seed", 7)
    call_well("run_subset_generation", "--root", root, "--task", "digits10", *options)
    assert n_seen(root, "digits10", "digits10") > 0
    before = tree(folder(root, "digits10"))
    scored = ("--root", root, "--experiment", "vit_digits10_3pc", "--seed_id", 0)
    for result in (finetune(root, "digits10"), call("run_gd_and_gc", *scored)):
        result.check_refused(str(folder(root, "digits10")), "was pre-trained on", "--overwrite")
    assert tree(folder(root, "digits10")) == before
    assert "pre-trained on" in finetune_well(root, "digits10", "--overwrite")
    assert n_seen(root, "digits10", "digits10") == 0


def test_a_task_of_other_classes_has_a_backbone_of_its_own(root: Path):
    finetune_well(root, "digits10")
    said = finetune_well(root, "digits345")
    assert n_seen(root, "digits345", "digits345") == 0
    # Put in the place of its own, the other's is told by the images that it has seen.
    assert "that digits345 does not use" in said
    assert n_seen(root, "digits10", "digits345") > 0
    shutil.rmtree(folder(root, "digits345"))
    shutil.copytree(folder(root, "digits10"), folder(root, "digits345"))
    finetune(root, "digits345").check_refused("was pre-trained on", "of digits345")


def other_weights(root: Path) -> None:
    from transformers import ViTForImageClassification

    model = ViTForImageClassification.from_pretrained(folder(root, "digits10"))
    with torch.no_grad():
        model.vit.embeddings.cls_token += 1
    model.save_pretrained(folder(root, "digits10"))


def no_record(root: Path) -> None:
    (folder(root, "digits10") / RECORD).unlink()


def damaged_record(root: Path) -> None:
    (folder(root, "digits10") / RECORD).write_bytes(b"")


def other_seed(root: Path) -> None:
    path = folder(root, "digits10") / RECORD
    save(path, {**load(path, ""), "seed": 1})


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (other_weights, "are not those whose pre-training"),
        (no_record, "pretraining.pt does not exist"),
        (damaged_record, "pretraining.pt is damaged"),
        (other_seed, "seed is 1, now 0"),
    ],
)
def test_a_backbone_that_its_record_does_not_fit(
    root: Path, spoil: Callable[[Path], None], says: str
):
    finetune_well(root, "digits10")
    spoil(root)
    finetune(root, "digits10").check_refused(str(folder(root, "digits10")), says, "--overwrite")
    assert ": pre-trained on" in finetune_well(root, "digits10", "--overwrite")


def test_another_recipe(root: Path, monkeypatch: pytest.MonkeyPatch):
    finetune_well(root, "digits10")
    monkeypatch.setitem(RECIPES, "digits", replace(RECIPES["digits"], learning_rate=1e-2))
    finetune(root, "digits10").check_refused("recipe is", "'learning_rate': 0.01", "--overwrite")
    assert ": pre-trained on" in finetune_well(root, "digits10", "--overwrite")


def test_an_interrupted_pre_training_counts_for_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("src.models.pretraining.shutil.copyfile", killed)
        assert finetune(root, "digits10").code == 130
    assert ": pre-trained on" in finetune_well(root, "digits10")


def test_a_source_without_a_recipe(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(RECIPES, "digits")
    finetune(root, "digits10").check_refused("no recipe", "images of digits", "mnist, cifar10")


def test_too_few_images_are_left(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(RECIPES, "digits", replace(RECIPES["digits"], batch_size=5000))
    finetune(root, "digits10").check_refused("images to pre-train on", "it takes 5000 and 1")
    assert not folder(root, "digits10").exists()
