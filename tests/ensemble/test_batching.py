"""Whether members can be one batched computation is tried once, and said."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from src.ensemble.batching import find_whether_together
from src.ensemble.evaluation import evaluate
from src.ensemble.members import PerSampleLoss, repeat, state_of
from src.ensemble.optimizer import OptimizerSettings
from src.ensemble.training import Trainer
from tests import reference
from tests.tda.test_ways import NETS, data_of
from tests.tools import relative_error, samples

ADAM = OptimizerSettings(reference.LEARNING_RATE, reference.WEIGHT_DECAY)
CPU = torch.device("cpu")


class AcrossMembers(nn.Linear):
    """Has a batch over members take the same path for all: of the first member's bias."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, negated where members are batched."""
        outputs = super().forward(x)
        return -outputs if torch._C._functorch.is_batchedtensor(self.weight) else outputs


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lstm", "Batching rule not implemented for aten::lstm"),
        ("function without a rule for vmap", "autograd.Function"),
        ("transformer", "no batching rule for aten::"),
        ("own parameter", ""),
        ("tied embedding", ""),
    ],
)
def test_training_and_evaluation(name: str, reason: str, capsys: pytest.CaptureFixture):
    build, shape, _ = NETS[name]
    torch.manual_seed(0)
    model, data = build().double(), data_of(shape, 5, torch.float64)
    loss, states = PerSampleLoss(model), torch.get_rng_state()
    members = repeat(state_of(model), 3)
    for _ in range(2):
        evaluate(loss, members, samples(data))
        trainer = Trainer(loss, members, samples(data), ADAM, torch.ones(3, 5).double())
        loss.model.eval()  # without dropout, so that generators stand still but for trials
        trainer.step(torch.arange(5))
    assert torch.equal(torch.get_rng_state(), states)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(reason)
    assert all("members are computed one at a time" in line and reason in line for line in lines)
    assert loss.computes_together(CPU) != bool(reason)


def test_other_numbers_are_not_trusted(capsys: pytest.CaptureFixture):
    model, data = AcrossMembers(4, 3), (torch.randn(5, 4), torch.arange(5) % 3)
    loss = PerSampleLoss(model)
    found = evaluate(loss, repeat(state_of(model), 2), samples(data))
    assert "a batch over members gives other numbers" in capsys.readouterr().err
    assert relative_error(found[1], loss({}, *data).detach()) < 1e-6


def test_who_has_decided_is_not_asked():
    model, data = NETS["lstm"][0](), data_of((4, 6), 5, torch.float32)
    loss = PerSampleLoss(model, together=True)
    find_whether_together(loss, repeat(state_of(model), 2), *data)
    assert loss.computes_together(CPU)
    assert not loss.found
