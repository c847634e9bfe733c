"""All that is computed runs on a device that is not the CPU (see tests/second_device.py)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from src.experiments import REPOSITORY
from tests.second_device import MODELS, STAGES


# cnn3 is made of what cnn2 is made of; the ViT takes more than a minute.
@pytest.fixture(
    scope="module",
    params=[pytest.param(m, marks=[] if m == "cnn2" else [pytest.mark.slow]) for m in MODELS],
)
def errors(request: pytest.FixtureRequest) -> dict[str, str]:
    """What went wrong in each stage of a model.

    In a process of its own, since a device that was registered stays for all that follows.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.second_device", request.param],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
    )
    return dict(map(json.loads, done.stdout.splitlines()))


@pytest.mark.parametrize("stage", STAGES)
def test_stage(errors: dict[str, str], stage: str):
    assert errors[stage] == ""
