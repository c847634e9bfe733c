"""The examples, from the drawing of subsets to the pages, each by its own definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src.experiments import PAPER_METHODS, REPOSITORY
from src.storage.files import load
from tests.tools import call, call_well

pytestmark = pytest.mark.drawn

EXAMPLES = REPOSITORY / "examples"
SCORING = ("run_loo", "run_ats", "run_if", "run_gd_and_gc")


def run_all(root: Path, example: Path, task: str, experiment: str, test_index: bool) -> str:
    """Run every script on two seeds; return the page without its markup's scripts."""
    define = ("--define", example, "--root", root)
    call_well("run_subset_generation", *define)
    assert [path.name for path in (root / "data").iterdir() if path.name != "subset_indices"] == [
        task
    ]
    named = (*define, "--experiment", experiment)
    for script in ("run_cnn_training", *SCORING):
        result = call(script, *named, "--seed_id", "0,1")
        assert result.code == 0, result
    test = load(root / "data" / task / "test.pt", "")
    one = ("--test_index", test["indices"][0].item()) if test_index else ()
    call_well("run_pvalues", *named, "--allow_missing", *one)
    call_well("run_correlations", *named, "--allow_missing")
    results = root / "results" / experiment
    for method in PAPER_METHODS:
        assert (results / "figures" / f"{method}_pairs.png").stat().st_size > 10_000
    pairs = pd.read_csv(results / "pairs.csv")
    assert len(pairs) == load_scores(root, experiment, "loo").shape[1:].numel()
    return (results / "index.html").read_text(encoding="utf-8")


def load_scores(root: Path, experiment: str, method: str):
    folder = root / "tda_scores" / experiment / method
    return load(folder / "446.pt", "")["scores"]


def test_tabular(tmp_path: Path):
    page = run_all(
        tmp_path, EXAMPLES / "tabular.py", "tumours", "mlp_tumours_10pc", test_index=True
    )
    assert "tumours: malignant and benign" in page
    assert "20 (10 per class)" in page
    assert "Of a sample&#39;s 30 numbers stand those farthest" in page
    assert "in units of their standard deviation, at most 4." in page


@pytest.mark.slow
def test_text(tmp_path: Path):
    page = run_all(
        tmp_path, EXAMPLES / "text.py", "reviews", "transformer_reviews_20pc", test_index=False
    )
    assert "reviews: complaint and praise" in page
    assert "numbers stand" not in page


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """A folder of two class folders of colour images, without train/ and test/."""
    rng = np.random.default_rng(0)
    for c, name in enumerate(("blue", "red")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(30):
            pixels = rng.integers(0, 128, (32, 32, 3), dtype=np.uint8)
            pixels[..., 2 - 2 * c] += 100
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


@pytest.mark.slow
def test_resnet(tmp_path: Path, class_folders: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IMAGES", str(class_folders))
    text = (EXAMPLES / "resnet.py").read_text(encoding="utf-8")
    # Eleven million parameters: as little of everything as shows that it goes through.
    for written, less in (
        ("n_per_class=(5, 20)", "n_per_class=(3, 20)"),
        ("n_test_per_class=10", "n_test_per_class=3"),
        ("epochs=6", "epochs=2, n_checkpoints=1"),
    ):
        assert written in text
        text = text.replace(written, less)
    example = tmp_path / "resnet.py"
    example.write_text(text, encoding="utf-8")
    page = run_all(tmp_path, example, "pictures", "resnet18_pictures_3pc", test_index=False)
    assert "pictures: blue and red" in page
