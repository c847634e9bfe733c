"""What the tests share: how far numbers are apart, and how scripts are called."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

from src.cli import run
from src.data.samples import Samples, to_samples
from src.experiments import REPOSITORY, Paths, parse_experiment
from src.storage.files import save
from src.tda.score_files import OF_LOO

FIRST_TEST_INDEX = 100  # of the splits of noise

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the largest magnitude of what is expected."""
    assert found.shape == expected.shape
    found, expected = found.double(), expected.double()
    largest = expected.abs().max().item()
    difference = (found - expected).abs().max().item()
    return difference / largest if largest > 0 else difference


def samples(data: tuple[Tensor, Tensor]) -> Samples:
    """Return inputs and labels as src takes them."""
    return Samples(*data, torch.arange(len(data[1])))


def with_parameters(model: nn.Module, params: dict[str, Tensor]) -> nn.Module:
    """Return the model with the given parameters, in its own dtype."""
    model.load_state_dict(params)
    return model


@dataclass(frozen=True)
class Result:
    """What a script did."""

    code: int
    out: str
    err: str

    def check_refused(self, *says: str) -> None:
        """Assert that it ended with one line on standard error that says all of `says`."""
        assert self.code == 2, self
        assert self.err.endswith("\n"), self
        assert len(self.err.splitlines()) == 1, self
        assert self.err.startswith("error: "), self
        for text in says:
            assert text in self.err, self


def call(script: str, *args: object) -> Result:
    """Run a script in this process, which saves the seconds that imports take."""
    module = importlib.import_module(script.removesuffix(".py"))
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        mock.patch.object(sys, "argv", [script, *map(str, args)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            run(module.main)
        except SystemExit as stop:
            code = stop.code
    return Result(code or 0, out.getvalue(), err.getvalue())


def call_well(script: str, *args: object) -> str:
    """Run a script in this process, assert that it ended well and return what it printed."""
    result = call(script, *args)
    assert result.code == 0, result
    assert result.err == "", result
    return result.out


def run_script(
    script: str | Path, *args: object, cwd: Path | None = None, **environment: str
) -> Result:
    """Run a script as a person does, in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / script), *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=120,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def tree(folder: Path) -> dict[str, str]:
    """Return every file below a folder with a digest of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def score_content(experiment: str, method: str, seed: int, scores: Tensor) -> dict:
    """Return what a score file with the given scores (C, n_train, n_test) holds."""
    _, n_train, n_test = scores.shape
    return {
        "scores": scores,
        "epochs": torch.arange(10, 15),
        "train_idx": torch.arange(n_train),
        "test_idx": torch.arange(n_test) + FIRST_TEST_INDEX,
        "experiment": experiment,
        "method": method,
        "seed": seed,
        **({key: torch.zeros(len(scores), n_test) for key in OF_LOO} if method == "loo" else {}),
        "settings": {
            "checkpoints": f"of {seed}",
            "train_samples": noise_digest(experiment, "train", n_train),
            "test_samples": noise_digest(experiment, "test", n_test),
            "torch": "2",
            "device": "cpu",
        },
    }


def subsets_content(experiment: str, seed: int, masks: Tensor, losses: Tensor) -> dict:
    """Return what a file of truth subsets with the given masks and losses (C, K, n_test) holds."""
    of_scores = torch.zeros(len(losses), masks.shape[1], losses.shape[-1])
    content = score_content(experiment, "gd", seed, of_scores)
    kept = ("epochs", "train_idx", "test_idx", "experiment", "seed", "settings")
    return {
        "masks": masks,
        "losses": losses,
        "kind": "truth",
        **{key: content[key] for key in kept},
    }


def save_images(paths: Paths, split: str, n: int) -> None:
    """Save n images of noise as a split of digits3."""
    save(paths.tensors("digits3", split), noise_tensors(split, n))


def noise_tensors(split: str, n: int) -> dict:
    """Return n images of noise as the tensors of a split of digits3, always the same."""
    generator = torch.Generator().manual_seed(n)
    first = FIRST_TEST_INDEX if split == "test" else 0
    return {
        "task": "digits3",
        "split": split,
        "images": torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8, generator=generator),
        "labels": torch.arange(n) % 3,
        "indices": torch.arange(n) + first,
    }


def noise_digest(experiment: str, split: str, n: int) -> str:
    """Return the digest of n images of noise as scores of an experiment tell it."""
    return to_samples(noise_tensors(split, n), parse_experiment(experiment)).digest()


def luminance(rgb: Sequence[float]) -> float:
    """Return the relative luminance of a colour, its parts in [0, 1], as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the contrast of two colours, from 1 to 21, as WCAG 2 defines it."""
    darker, lighter = sorted((luminance(a), luminance(b)))
    return (lighter + 0.05) / (darker + 0.05)
