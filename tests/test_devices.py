"""Devices: which are chosen, and what is asked of those that are not the CPU."""

from __future__ import annotations

import psutil
import pytest
import torch

from src.ensemble import memory
from src.ensemble.generators import without_drawing
from src.errors import UserError
from src.steps import choose_device

MPS = torch.device("mps")


@pytest.fixture
def mps(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A torch that has Apple's GPU."""
    monkeypatch.setattr(torch, "empty", lambda *_, device: device)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    return monkeypatch


@pytest.mark.parametrize("name", ["mps", "mps:0", "cpu"])
def test_devices_that_are_there(mps: pytest.MonkeyPatch, name: str):
    assert choose_device(name) == torch.device(name)


@pytest.mark.parametrize("has_cuda", [False, True])
def test_apples_gpus_have_to_be_asked_for(mps: pytest.MonkeyPatch, has_cuda: bool):
    mps.setattr(torch.cuda, "is_available", lambda: has_cuda)
    assert choose_device(None).type == ("cuda" if has_cuda else "cpu")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is one")
def test_no_such_device():
    with pytest.raises(UserError, match="no device 'mps' here: use cpu, cuda, cuda:N or mps"):
        choose_device("mps")


@pytest.mark.parametrize(
    ("available", "allocated", "free"), [(100, 20, 50), (30, 20, 30), (100, 80, 0)]
)
def test_free_memory(mps: pytest.MonkeyPatch, available: int, allocated: int, free: int):
    mps.setattr(torch.mps, "recommended_max_memory", lambda: 70)
    mps.setattr(torch.mps, "driver_allocated_memory", lambda: allocated)
    mps.setattr(psutil, "virtual_memory", lambda: type("", (), {"available": available}))
    assert memory.free_memory(MPS) == free


def test_generators_stand_where_they_stood(mps: pytest.MonkeyPatch):
    states = ["before"]
    mps.setattr(torch.mps, "get_rng_state", lambda: states[-1])
    mps.setattr(torch.mps, "set_rng_state", states.append)
    of_cpu = torch.get_rng_state()
    with pytest.raises(KeyError), without_drawing(MPS):
        states.append("after")
        torch.rand(1)
        raise KeyError
    assert states == ["before", "after", "before"]
    assert torch.equal(torch.get_rng_state(), of_cpu)


def test_out_of_memory(mps: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    emptied = []
    mps.setattr(torch.mps, "empty_cache", lambda: emptied.append(True))

    def compute(chunk: list[int]) -> list[int]:
        if len(chunk) > 2:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)")
        return chunk

    assert [*memory.in_chunks([1, 2, 3, 4, 5], 5, compute)] == [[1, 2], [3, 4], [5]]
    assert emptied == [True]
    assert "going on with 2" in capsys.readouterr().err
