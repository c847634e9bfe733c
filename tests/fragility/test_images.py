"""The studies of images: retraining, groups of samples, what is measured, what is reported."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from src.data.samples import Samples
from src.data.sources import Split
from src.ensemble.members import trainable
from src.ensemble.optimizer import OptimizerSettings
from src.fragility import deep, mnist, points, retraining
from src.fragility.deep_measurement import measured as measured_deep
from src.fragility.images import load_images
from src.fragility.mnist_measurement import measured as measured_mnist
from src.fragility.published import published
from src.fragility.recording import record_study
from src.paper.measured import Measured
from src.paper.tables import TABLES
from tests import reference
from tests.conftest import Case
from tests.tools import relative_error

CASE = Case(7, 3)


@pytest.mark.parametrize("at_once", [2, 100])
def test_retraining_is_plain_retraining_without_each_sample(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retraining, "members_at_once", lambda *_: at_once)
    removed, batch_size, n_steps = torch.tensor([1, 4, 6]), 3, 5
    model, loss = CASE.models[-1], CASE.loss()
    found = retraining.retrained_losses(
        loss,
        trainable(model),
        CASE.train,
        removed,
        CASE.test,
        OptimizerSettings(1e-2, 1e-3),
        batch_size,
        n_steps,
        seed=724,
    )
    for row, j in zip(found, [*removed.tolist(), None], strict=True):
        after = reference.continued(
            model,
            CASE.data[0],
            j,
            seed=724,
            batch_size=batch_size,
            n_steps=n_steps,
            learning_rate=1e-2,
            weight_decay=1e-3,
        )
        with torch.no_grad():
            images, labels = CASE.data[1]
            expected = torch.nn.functional.cross_entropy(after(images), labels, reduction="none")
        assert relative_error(row, expected) < 1e-9
    assert (found[:-1] != found[-1]).all()


def test_test_points_are_those_of_highest_and_median_loss() -> None:
    assert points.test_points(torch.tensor([3.0, 9.0, 1.0, 2.0, 7.0])).tolist() == [1, 0]
    assert points.test_points(torch.tensor([4.0])).tolist() == [0, 0]


def test_groups_are_of_largest_influence_and_around_the_30th_percentile() -> None:
    sizes = torch.arange(1.0, 21.0)  # of sample j: j + 1
    signs = torch.tensor([1.0, -1.0]).repeat(10)
    influence = torch.stack([sizes * signs, sizes.flip(0) * signs], 1)
    removed, groups = points.groups_of(influence, 4, (*points.GROUPS, "percentile_highest"))
    chosen = {name: sorted(removed[group].tolist()) for name, group in groups.items()}
    assert chosen == {
        "top_highest": [16, 17, 18, 19],
        "top_median": [0, 1, 2, 3],
        "percentile_highest": [4, 5, 6, 7],
    }
    assert removed.tolist() == sorted({j for group in chosen.values() for j in group})
    assert "percentile_highest" not in points.groups_of(influence, 4)[1]


def images(n: int, shape: tuple[int, ...], seed: int) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(n, *shape, generator=generator)
    return Samples(values, torch.arange(n) % 3, torch.arange(100, 100 + n))


SMALL_DEEP = {"steps": 6, "retraining": 3, "n_removed": 2, "batch_size": 4, "cg_iterations": 5}
SMALL_MNIST = {
    "steps": 9,
    "batch_size": 4,
    "n_removed": 2,
}


def check_measured(found: dict[str, Any], train: Samples, test: Samples) -> None:
    k = len(found["removed"])
    assert found["predicted"].shape == found["retrained"].shape == (k, 2)
    assert set(found["removed"].tolist()) <= set(train.indices.tolist())
    assert set(found["test"].tolist()) <= set(test.indices.tolist())
    assert found["control"].shape == found["test_losses"].shape == (2,)
    assert found["gradient_norm"] > 0
    for name, value in found.items():
        if isinstance(value, torch.Tensor):
            assert value.isfinite().all(), name
    # Leaving something out changes something, and the control is none of those.
    assert (found["retrained"] != found["control"]).any(0).all()


@pytest.mark.parametrize("network", ["lenet", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_a_deep_network_is_measured(network: str) -> None:
    train, test = images(11, (1, 28, 28), 0), images(5, (1, 28, 28), 1)
    chosen = next(c for c in deep.configurations("quick") if c.network == network)
    found = measured_deep(replace(chosen, **SMALL_DEEP), 446, train, test, 3)
    check_measured(found, train, test)
    again = measured_deep(replace(chosen, **SMALL_DEEP), 446, train, test, 3)
    assert torch.equal(found["retrained"], again["retrained"])
    other = measured_deep(replace(chosen, **SMALL_DEEP), 724, train, test, 3)
    assert not torch.equal(found["test_losses"], other["test_losses"])


@pytest.mark.slow
@pytest.mark.parametrize("decay", [1e-2, 0.0])
def test_the_small_network_is_measured(decay: float) -> None:
    train, test = images(20, (1, 28, 28), 0), images(5, (1, 28, 28), 1)
    chosen = next(c for c in mnist.configurations("quick") if c.decay == decay)
    found = measured_mnist(replace(chosen, **SMALL_MNIST), 446, train, test)
    check_measured(found, train, test)
    assert found["retrained"].dtype == torch.float64
    if not decay:
        assert "decrements" not in found
        return
    assert found["decrement"] <= chosen.tolerance
    begin, end = found["decrements_before"], found["decrements"]
    assert (end[:-1] <= chosen.retraining_tolerance * begin[:-1]).all()
    assert begin[-1] == found["decrement"] <= 1e-3 * begin[:-1].min()
    assert (found["control"] == 0).all()  # it begins where it may end


def test_images_are_fixed_balanced_and_disjoint_by_split(datasets_folder: Path) -> None:
    train, test, task = load_images("mnist", 3, 2, datasets_folder)
    assert train.labels.bincount().tolist() == [3] * 10
    assert test.labels.bincount().tolist() == [2] * 10
    again, _, _ = load_images("mnist", 3, 2, datasets_folder)
    assert train.digest() == again.digest()
    assert (task.n_classes, train.images.shape[1:]) == (10, (1, 28, 28))


def test_all_images_of_a_split_can_be_the_training_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def of(n: int, first: int) -> Split:
        values = (torch.arange(n * 4) + first).to(torch.uint8).reshape(n, 1, 2, 2)
        return Split(np.arange(n) % 10, lambda indices: values[list(indices)], "noise")

    splits = {"train": of(23, 0), "test": of(40, 100)}
    monkeypatch.setattr("src.fragility.images.load_splits", lambda task, _: (task, splits))
    train, test, _ = load_images("mnist", None, 3, None)
    assert train.indices.tolist() == list(range(23))
    assert torch.equal(train.labels, torch.arange(23) % 10)
    torch.testing.assert_close(train.images[5, 0, 1, 0], torch.tensor(22 / 255))
    assert len(test) == 30
    assert torch.equal(test.labels, test.indices % 10)


@pytest.mark.parametrize("study", [mnist, deep])
@pytest.mark.parametrize("scale", ["quick", "paper"])
def test_configurations_have_names_of_their_own_and_plain_fields(study: Any, scale: str) -> None:
    configurations = study.configurations(scale)
    assert len({c.name for c in configurations}) == len(configurations)
    for configuration in configurations:
        for value in asdict(configuration).values():
            assert value is None or type(value) in (str, int, float, bool)


def planted(configuration: Any, seed: int, *, percentile: bool) -> dict[str, Any]:
    """Return a result whose changes are three times the predicted ones and the control's 0.5."""
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.randn(12, 2, generator=generator)
    found = {
        "settings": asdict(configuration),
        "predicted": predicted,
        "retrained": 3 * predicted + 0.5,
        "control": torch.tensor([0.5, 0.5]),
        "test_losses": torch.tensor([4.0, 0.1]),
        "residual": torch.tensor([1e-8, 1e-9]),
        "gradient_norm": 1e-7,
        "n_train": 12,
        "test_accuracy": 0.75,
        "group_top_highest": torch.arange(4),
        "group_top_median": torch.arange(4, 8),
    }
    if "retraining_tolerance" in found["settings"]:
        found |= {
            "gradient_norms": torch.arange(13.0),
            "decrements": torch.arange(13.0) / 100,
            "decrements_before": torch.ones(13),
        }
    return found | ({"group_percentile_highest": torch.arange(8, 12)} if percentile else {})


def test_the_table_of_mnist_holds_what_was_planted(tmp_path: Path) -> None:
    chosen = mnist.configurations("quick")
    results = {
        c.name: {s: planted(c, s, percentile="percentile" in c.groups) for s in seeds}
        for c, seeds in zip(chosen[:3], ((446, 724, 571), (446,), (446, 724)), strict=True)
    }
    lines = mnist.report(results, tmp_path)
    table = pd.read_csv(tmp_path / "agreement.csv")
    assert len(table) == len(lines) == 3 + 3 + 2
    np.testing.assert_allclose(table["pearson"], 1)
    np.testing.assert_allclose(table["spearman"], 1)
    np.testing.assert_allclose(table["slope"], 3)
    assert (table["slope_raw"] - 3).abs().min() > 1e-3
    np.testing.assert_allclose(table["control"], 0.5)
    assert table["gradient_norm_retrained"][:3].tolist() == [3, 7, 11]  # the largest
    np.testing.assert_allclose(table["left"][:3], [0.03, 0.07, 0.11])
    assert table["unfinished"][:3].tolist() == [3, 4, 4]  # a share of 0 ended
    assert table["seeds"].tolist() == [3, 3, 3, 1, 1, 1, 2, 2]
    assert table["slope_low"].isna().tolist() == [seeds == 1 for seeds in table["seeds"]]
    # Decay 1e-3 at both test points, none at one; others have not been published.
    known = table["pearson_published"].dropna()
    assert known.tolist() == [0.95, 0.92, 0.41]
    seeds = pd.read_csv(tmp_path / "seeds.csv")
    assert len(seeds) == 3 * 3 + 3 + 2 * 2
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"changes_top_highest.png", "agreement_by_decay.pdf"} <= names


def test_the_table_of_deep_networks_does_with_what_is_there(tmp_path: Path) -> None:
    chosen = [c for c in deep.configurations("quick") if c.network in ("lenet", "resnet50")][2:6]
    results = {c.name: {446: planted(c, 446, percentile=False)} for c in chosen}
    deep.report(results, tmp_path)
    table = pd.read_csv(tmp_path / "agreement.csv")
    assert len(table) == 8
    row = table[(table["configuration"] == chosen[0].name) & (table["group"] == "top_median")]
    assert row[["pearson_published", "spearman_published"]].iloc[0].tolist() == [0.45, 0.46]
    assert (tmp_path / "figures" / "agreement_median.png").exists()
    assert "Pearson, published" in (tmp_path / "agreement.md").read_text()
    kept = record_study("deep", "quick", tmp_path, tmp_path / "measured")
    shown = TABLES["image_fits"]([Measured.of(kept.name, kept.parent)])
    assert shown["Spearman"].tolist() == ["1.00"] * 8  # of one seed there is no interval
    assert shown["Spearman, published"][:2].tolist() == ["0.69", "0.46"]
    assert shown["images"][0] == "12 of cifar10"
    assert shown["left out"][0] == "4, largest influence"
    assert not {"single seeds", "smallest eigenvalue"} & set(shown)


def test_parts_of_a_study_are_recorded_beside_each_other(tmp_path: Path) -> None:
    """Some configurations, or some seeds; together they are what one record would be."""
    first, second, third = [c for c in deep.configurations("quick") if c.network == "lenet"][:3]

    def record(seeds: dict[Any, list[int]], folder: str, *, part: bool) -> Measured:
        found = {c.name: {s: planted(c, s, percentile=False) for s in seeds[c]} for c in seeds}
        deep.report(found, tmp_path)
        kept = record_study("deep", "quick", tmp_path, tmp_path / folder, part=part)
        return Measured.of(kept.name, kept.parent)

    record({second: [446, 724], third: [446, 724]}, "parts", part=False)
    record({first: [571]}, "parts", part=True)
    record({second: [724]}, "parts", part=True)  # again
    parts = record({second: [571]}, "parts", part=True)
    whole = record({first: [571], second: [446, 724, 571], third: [446, 724]}, "whole", part=False)
    assert parts.about["seed_id"] == whole.about["seed_id"] == "0-2"
    for name in ("agreement", "single_seeds"):
        pd.testing.assert_frame_equal(parts.table(name), whole.table(name), rtol=1e-4)
    assert whole.table("agreement")["seeds"].tolist() == [1, 1, 3, 3, 2, 2]


def test_published_values_are_those_of_the_slides() -> None:
    found = published("vgg14", "cifar10", decays=False, point="highest")
    assert found == {"pearson": 0.75, "spearman": 0.64}
    assert published("vgg14", "cifar10", decays=False, point="median") == {}
    assert published("perceptron", "iris", decays=True, point="highest") == {}
