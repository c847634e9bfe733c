"""Networks whose layers do not show all that their parameters do, against a loop over samples."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

from src.ensemble.members import PerSampleLoss, trainable
from src.errors import UserError
from src.tda.gradients import per_sample_gradients
from src.tda.ways import way_for
from tests import reference
from tests.tda.test_layers import DTYPES, N_CLASSES, check

WIDTH = 6


class Net(nn.Module):
    """Maps rows (N, WIDTH), or sequences (N, T, WIDTH), to logits by layers and a function."""

    def __init__(self, forward: Callable[[Net, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.compute = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.compute(self, x)


def linear(outputs: int = WIDTH, **options: bool) -> nn.Linear:
    """Return a linear layer of WIDTH inputs."""
    return nn.Linear(WIDTH, outputs, **options)


def small() -> dict[str, nn.Module]:
    """Return the layers of most networks here."""
    return {"fc": linear(), "head": linear(N_CLASSES)}


def add_in_place(m: Net, x: Tensor) -> Tensor:
    """Return logits where a layer's output is added to in place."""
    h = m.fc(x)
    h += torch.tanh(m.more(h.clone()))
    return m.head(h)


def multiply_view_in_place(m: Net, x: Tensor) -> Tensor:
    """Return logits where a view of a layer's output is changed in place."""
    h = m.fc(x)
    h[:, 1:3].mul_(3).sin_()
    return m.head(h)


def tied() -> Net:
    """Return a network with two layers of one weight, which the model lists as the second one's."""
    net = Net(lambda m, x: m.head(m.second(torch.tanh(m.fc(x)))), second=linear(), **small())
    net.second.weight = net.fc.weight
    return net


def tied_embedding() -> Net:
    """Return a network with an embedding whose weight makes the logits too."""
    net = Net(lambda m, ids: m.out(m.embed(ids).tanh().mean(1)), embed=nn.Embedding(N_CLASSES, 4))
    net.out = nn.Linear(4, N_CLASSES)
    net.out.weight = net.embed.weight
    return net


def shared_module() -> Net:
    """Return a network in which one layer has two names and is called by both."""
    net = Net(lambda m, x: m.head(m.again(torch.tanh(m.fc(x)))), **small())
    net.again = net.fc
    return net


class Scale(nn.Module):
    """A parametrisation with a layer in it, which is called on rows that are no samples."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the layer's outputs."""
        return self.inner(weight)


def parametrised(rows: int = WIDTH) -> Net:
    """Return a network with a linear layer in the parametrisation of another's weight."""
    fc = nn.Linear(WIDTH, rows)
    parametrize.register_parametrization(fc, "weight", Scale())
    return Net(lambda m, x: m.head(torch.tanh(m.fc(x))), fc=fc, head=nn.Linear(rows, N_CLASSES))


def with_own_parameter() -> Net:
    """Return a network with parameters that belong to no layer."""
    net = Net(lambda m, x: m.head(torch.tanh(m.fc(x)) * m.gain + m.shift), **small())
    net.gain, net.shift = nn.Parameter(torch.rand(WIDTH)), nn.Parameter(torch.randn(1))
    return net


def gated() -> Net:
    """Return a network that uses a layer's weight twice, once behind a gate that is still zero."""
    net = Net(
        lambda m, x: m.head(torch.tanh(m.fc(x)) + m.gate * F.linear(x, m.fc.weight)), **small()
    )
    net.gate = nn.Parameter(torch.zeros(()))
    return net


def unreached() -> Net:
    """Return a network with layers that do not reach the loss: one not called, one without use."""

    def forward(m: Net, x: Tensor) -> Tensor:
        m.unused(x)
        return m.head(torch.tanh(m.fc(x)))

    return Net(forward, unused=linear(), uncalled=linear(), **small())


def frozen_layer() -> Net:
    """Return a network with a frozen layer, one with a frozen weight, one with a frozen bias."""
    net = Net(
        lambda m, x: m.head(torch.tanh(m.third(torch.tanh(m.second(torch.tanh(m.fc(x))))))),
        second=linear(),
        third=linear(),
        **small(),
    )
    net.fc.requires_grad_(False)
    net.second.weight.requires_grad_(False)
    net.third.bias.requires_grad_(False)
    return net


def experts() -> Net:
    """Return a network whose samples go through one of two layers each."""

    def forward(m: Net, x: Tensor) -> Tensor:
        h, first = torch.zeros_like(x), x[:, 0] > 0
        for which, expert in ((first, m.fc), (~first, m.other)):
            h = h.index_put((which,), expert(x[which]))
        return m.head(torch.tanh(h))

    return Net(forward, other=linear(), **small())


class HalfGradient(torch.autograd.Function):
    """The identity with a derivative of one half, which vmap knows no rule for."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # noqa: ANN001
        """Return x."""
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # noqa: ANN001
        """Return half the gradient."""
        return gradient / 2


def without_vmap_rule() -> Net:
    """Return a network with a function of one's own, written for autograd alone."""
    net = Net(lambda m, x: m.head(HalfGradient.apply(m.gain * torch.tanh(m.fc(x)))), **small())
    net.gain = nn.Parameter(torch.rand(WIDTH))
    return net


def attention_in_one_module() -> Net:
    """Return a network with torch's multi-head attention."""

    def forward(m: Net, x: Tensor) -> Tensor:
        return m.head(m.attention(x, x, x)[0].mean(1))

    return Net(
        forward, attention=nn.MultiheadAttention(WIDTH, 2, batch_first=True), head=linear(N_CLASSES)
    )


def recurrent(kind: type[nn.RNNBase]) -> Net:
    """Return a network with one of torch's recurrences."""
    return Net(
        lambda m, x: m.head(m.rnn(m.fc(x))[0][:, -1]),
        rnn=kind(WIDTH, WIDTH, batch_first=True),
        **small(),
    )


def transformer(dropout: float = 0.1) -> Net:
    """Return a network with torch's transformer layer."""
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 8, dropout, batch_first=True)
    return Net(lambda m, x: m.head(m.layer(x).mean(1)), layer=layer, head=linear(N_CLASSES))


def checkpointed(*, reentrant: bool) -> Net:
    """Return a network whose activations are computed again in the backward pass."""
    return Net(
        lambda m, x: m.head(
            checkpoint(lambda h: torch.tanh(m.second(h)), m.fc(x), use_reentrant=reentrant)
        ),
        second=linear(),
        **small(),
    )


def changed_input(m: Net, x: Tensor) -> Tensor:
    """Return logits where what a layer was given is changed afterwards; its weight is frozen."""
    h = torch.tanh(m.fc(x)).clone()
    y = m.frozen(h)
    h.mul_(2)
    return m.head(y + h)


def with_changed_input() -> Net:
    """Return that network."""
    net = Net(changed_input, frozen=linear(), **small())
    net.frozen.weight.requires_grad_(False)
    return net


# Builds a network, dimensions of a sample (None: ids), the layers whose rules are used.
NETS = {
    "in-place relu": (
        lambda: nn.Sequential(linear(), nn.ReLU(inplace=True), linear(N_CLASSES)),
        (WIDTH,),
        {"0", "2"},
    ),
    "in-place relu on maps": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(48, N_CLASSES)
        ),
        (1, 6, 6),
        {"0", "3"},
    ),
    "in-place relu over positions": (
        lambda: nn.Sequential(
            linear(), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(3 * WIDTH, N_CLASSES)
        ),
        (3, WIDTH),
        None,
    ),
    "added in place": (lambda: Net(add_in_place, more=linear(), **small()), (WIDTH,), None),
    "view changed in place": (lambda: Net(multiply_view_in_place, **small()), (WIDTH,), None),
    "weight without its layer": (
        lambda: Net(lambda m, x: m.head(torch.tanh(m.fc(x)) + F.linear(x, m.fc.weight)), **small()),
        (WIDTH,),
        {"head"},
    ),
    "weight behind a gate": (gated, (WIDTH,), {"head"}),
    "bias without its layer": (
        lambda: Net(lambda m, x: m.head(torch.tanh(m.fc(x)) * m.fc.bias), **small()),
        (WIDTH,),
        {"head"},
    ),
    "weight decay in the logits": (
        lambda: Net(lambda m, x: m.head(m.fc(x)) * m.head.weight.square().sum(), **small()),
        (WIDTH,),
        {"fc"},
    ),
    "tied layers": (tied, (WIDTH,), {"head", "fc"}),
    "tied embedding": (tied_embedding, None, {"out"}),
    "one module by two names": (shared_module, (WIDTH,), {"head"}),
    "called twice": (
        lambda: Net(lambda m, x: m.head(torch.tanh(m.fc(torch.tanh(m.fc(x))))), **small()),
        (WIDTH,),
        {"head"},
    ),
    "called on each position": (
        lambda: Net(
            lambda m, x: m.head(torch.stack([m.fc(t) for t in x.unbind(1)], 1).tanh().sum(1)),
            **small(),
        ),
        (3, WIDTH),
        {"head"},
    ),
    "called on each sample": (
        lambda: Net(lambda m, x: m.head(torch.stack([m.fc(row) for row in x]).tanh()), **small()),
        (WIDTH,),
        {"head"},
    ),
    "positions before samples": (
        lambda: Net(lambda m, x: m.head(m.fc(x.transpose(0, 1)).tanh().mean(0)), **small()),
        (3, WIDTH),
        {"head"},
    ),
    "as many positions before samples": (
        lambda: Net(lambda m, x: m.head(m.fc(x.transpose(0, 1)).tanh().mean(0)), **small()),
        (4, WIDTH),
        {"head"},
    ),
    "samples in another order": (
        lambda: Net(lambda m, x: m.head(m.fc(x.flip(0)).flip(0).tanh()), **small()),
        (WIDTH,),
        {"head"},
    ),
    "keyword": (
        lambda: Net(lambda m, x: m.head(input=torch.tanh(m.fc(input=x))), **small()),
        (WIDTH,),
        {"fc", "head"},
    ),
    "parametrised": (parametrised, (WIDTH,), None),
    "parametrised with as many rows as samples": (lambda: parametrised(4), (WIDTH,), None),
    "weight norm": (
        lambda: Net(
            lambda m, x: m.head(torch.tanh(m.fc(x))),
            fc=parametrizations.weight_norm(linear()),
            head=linear(N_CLASSES),
        ),
        (WIDTH,),
        {"fc", "head"},
    ),
    "spectral norm": (
        lambda: Net(
            lambda m, x: m.head(torch.tanh(m.fc(x))),
            fc=parametrizations.spectral_norm(linear()),
            head=linear(N_CLASSES),
        ),
        (WIDTH,),
        {"fc", "head"},
    ),
    "own parameter": (with_own_parameter, (WIDTH,), {"fc", "head"}),
    "not reached by the loss": (unreached, (WIDTH,), {"fc", "head"}),
    "frozen layer, weight and bias": (frozen_layer, (WIDTH,), {"second", "third", "head"}),
    "frozen weight of a changed input": (with_changed_input, (WIDTH,), {"fc", "frozen", "head"}),
    "experts": (experts, (WIDTH,), {"head"}),
    "function without a rule for vmap": (without_vmap_rule, (WIDTH,), {"fc", "head"}),
    "attention": (attention_in_one_module, (3, WIDTH), {"head"}),
    "transformer": (transformer, (3, WIDTH), None),
    "lstm": (lambda: recurrent(nn.LSTM), (4, WIDTH), {"fc", "head"}),
    "gru": (lambda: recurrent(nn.GRU), (4, WIDTH), {"fc", "head"}),
    "rnn": (lambda: recurrent(nn.RNN), (4, WIDTH), {"fc", "head"}),
    "checkpoint": (lambda: checkpointed(reentrant=False), (WIDTH,), {"fc", "second", "head"}),
    "reentrant checkpoint": (lambda: checkpointed(reentrant=True), (WIDTH,), set()),
    "deconvolution": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(32, N_CLASSES)
        ),
        (1, 3, 3),
        {"3"},
    ),
    "instance norm": (
        lambda: nn.Sequential(
            nn.InstanceNorm1d(3, affine=True), nn.Flatten(), nn.Linear(12, N_CLASSES)
        ),
        (3, 4),
        {"2"},
    ),
}


def data_of(shape: tuple[int, ...] | None, n: int, dtype: torch.dtype) -> reference.Data:
    """Return inputs of a shape, or sequences of ids, and labels."""
    inputs = torch.randint(N_CLASSES, (n, 5))
    inputs = inputs if shape is None else torch.randn(n, *shape, dtype=dtype)
    return inputs, torch.arange(n) % N_CLASSES


@DTYPES
@pytest.mark.parametrize("at_once", [100, 3, 1], ids="batches of {}".format)
@pytest.mark.parametrize("name", NETS)
def test_gradients(name: str, at_once: int, dtype: torch.dtype):
    build, shape, layers = NETS[name]
    model, data = build().to(dtype), data_of(shape, 7, dtype)
    check(model, data, dtype, at_once)
    if layers is not None and at_once == 100:
        way = way_for(PerSampleLoss(model), trainable(model), *data)
        assert set(way.layers) == layers


@pytest.mark.parametrize("name", NETS)
def test_single_samples_that_all_have_one_class(name: str):
    """One sample by itself: nothing but its own batch is known of the network."""
    build, shape, _ = NETS[name]
    check(build().double(), data_of(shape, 1, torch.float64), torch.float64)


@pytest.mark.parametrize(
    ("name", "said"),
    [("lstm", 1), ("experts", 1), ("function without a rule for vmap", 1), ("own parameter", 0)],
)
def test_one_sample_at_a_time_is_said_once(capsys: pytest.CaptureFixture, name: str, said: int):
    build, shape, _ = NETS[name]
    model, data = build().double(), data_of(shape, 5, torch.float64)
    loss = PerSampleLoss(model)
    for _ in range(3):
        per_sample_gradients(loss, trainable(model), *data)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == said
    assert all("one sample at a time" in line for line in lines)


def softmax_over_batch(m: Net, x: Tensor) -> Tensor:
    """Return logits that are normalised over the samples of the batch."""
    return m.head(torch.softmax(m.fc(x), 0))


MIXING = {
    "batch statistics": lambda: nn.Sequential(
        linear(), nn.BatchNorm1d(WIDTH, track_running_stats=False), linear(N_CLASSES)
    ),
    "softmax over the batch": lambda: Net(softmax_over_batch, **small()),
    "sum over the samples before": lambda: Net(lambda m, x: m.head(m.fc(x).cumsum(0)), **small()),
    "divided by their number": lambda: Net(lambda m, x: m.head(m.fc(x)) / len(x), **small()),
    "recurrence over samples": lambda: Net(
        lambda m, x: m.head(m.rnn(x)[0]), rnn=nn.GRU(WIDTH, WIDTH), head=linear(N_CLASSES)
    ),
}


@pytest.mark.parametrize("name", MIXING)
def test_samples_that_see_each_other_are_refused(name: str):
    model = MIXING[name]().double()
    data = data_of((WIDTH,), 5, torch.float64)
    with pytest.raises(UserError, match="depends on the other samples of its batch") as refused:
        per_sample_gradients(PerSampleLoss(model), trainable(model), *data)
    assert "\n" not in str(refused.value)


def test_a_batch_of_one_does_not_hide_what_the_next_one_shows():
    model = MIXING["softmax over the batch"]().double()
    loss, params = PerSampleLoss(model), trainable(model)
    inputs, labels = data_of((WIDTH,), 5, torch.float64)
    per_sample_gradients(loss, params, inputs[:1], labels[:1])
    with pytest.raises(UserError, match="depends on the other samples"):
        per_sample_gradients(loss, params, inputs, labels)
