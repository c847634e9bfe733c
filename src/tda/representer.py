"""Representer points: the last layer as a sum over training samples (Yeh et al. 2018).

    τ(z_j, z) = α_jy f_jᵀ f_z        α_j = −(1 / 2λn) (softmax(W f_j) − p_j)

f is what the last linear layer is given, with a 1 for its bias if it has one, y the label of z, and
p_j the softmax of the network's own outputs, not the label. W minimises

    F(W) = (1/n) Σ_j cross-entropy(softmax(W f_j), p_j) + λ ‖W‖²

over all training samples, bias included. There W = Σ_j α_j f_jᵀ, so that the logit of class y is
Σ_j τ(z_j, z) (their theorem 3.1). Positive: z_j excites the class of z, which helps z.

That holds at a stationary point alone, so the norm of the gradient that remains is kept beside the
scores and printed, with how often the refitted layer and the network predict the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.data.samples import Samples
from src.ensemble.independence import few, trial
from src.ensemble.members import PerSampleLoss, State, cross_entropy
from src.ensemble.memory import evaluation_batch, in_chunks
from src.errors import DivergedError, UserError
from src.tda.estimator import Draws, Scores, each_checkpoint, stacked
from src.tda.solvers.conjugate_gradient import conjugate_gradient

NEAR = 1e-6  # norm of the gradient at which steps no longer look at F
MAX_ITERATIONS = 10_000  # until there
MAX_STEPS = 20  # from there on


@dataclass(frozen=True)
class RepresenterPoints:
    """The estimator `representer`.

    Attributes:
        l2: λ.
        chunk_size: Changes nothing: features of all samples are held, one vector each.
    """

    methods: ClassVar[tuple[str, ...]] = ("representer",)
    retrains: ClassVar[bool] = False

    l2: float = 3e-3
    chunk_size: int | None = None

    def settings(self) -> dict:
        """Return every option that changes the numbers."""
        return {"representer_l2": self.l2}

    def __call__(self, draws: Draws) -> dict[str, Scores]:
        """Return the scores of all pairs at all checkpoints.

        Raises:
            UserError: The task's targets are values, its criterion is one of its own, or the
                network's outputs are not those of a linear layer.
        """
        setup = draws.setup
        if setup.train.labels.is_floating_point() or setup.loss.criterion is not cross_entropy:
            raise UserError(
                f"representer points are of networks that are trained by the cross-entropy of "
                f"classes, and {setup.experiment.task.name} has "
                + ("values" if setup.train.labels.is_floating_point() else "another criterion")
            )

        def of_checkpoint(checkpoint: State) -> tuple[Tensor, dict[str, Tensor]]:
            return representer_points(
                setup.loss, checkpoint, setup.train, setup.test, setup.scored, l2=self.l2
            )

        scores, known = stacked(
            each_checkpoint(draws, of_checkpoint, f"representer seed {draws.seed}")
        )
        message = (
            "remaining gradient norm of the refitted last layer at most "
            f"{known['gradient_norm'].max():.1e}, before {known['gradient_norm_before'].max():.1e};"
            f" it predicts the network's class of at least {known['agreement_train'].min():.1%} of "
            f"the training samples and {known['agreement'].min():.1%} of the test samples"
        )
        return {"representer": Scores(scores, known, message)}


def representer_points(
    loss: PerSampleLoss,
    checkpoint: State,
    train: Samples,
    test: Samples,
    scored: Tensor,
    *,
    l2: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the scores (n_scored, n_test) of all pairs at one checkpoint, float64, on the CPU.

    Args:
        loss: The per-sample loss, of logits.
        checkpoint: State θ.
        train: The training samples, which the layer is refitted on.
        test: The test samples.
        scored: Positions of the training samples that are scored, int64 (n_scored,).
        l2: λ.

    Returns:
        The scores, and of the refitted layer the norm of the gradient of F that remains, the one
        that it had at the trained weights, and the share of test and of training samples of which
        it and the network predict the same class, each a number, by name.

    Raises:
        UserError: The network's outputs are not those of a linear layer.
        DivergedError: Features or weights are not finite.
    """
    name = last_layer(loss, checkpoint, train)
    of_train, outputs_train, weights = features(loss, checkpoint, train, name)
    of_test, outputs_test, _ = features(loss, checkpoint, test, name)
    objective = Objective(of_train, outputs_train.softmax(1), l2)
    fitted = refit(objective, weights)
    alpha = (outputs_train.softmax(1) - (of_train @ fitted.T).softmax(1)) / (2 * l2 * len(train))
    products = of_train[scored] @ of_test.T
    scores = alpha[scored][:, test.labels.cpu()] * products

    def agreement(features: Tensor, outputs: Tensor) -> Tensor:
        return ((features @ fitted.T).argmax(1) == outputs.argmax(1)).double().mean()

    return scores, {
        "gradient_norm": objective.gradient(fitted).norm(),
        "gradient_norm_before": objective.gradient(weights).norm(),
        "agreement": agreement(of_test, outputs_test),
        "agreement_train": agreement(of_train, outputs_train),
    }


class _Recorder:
    """What linear layers are given and return in a pass over a network, by name."""

    def __init__(self, model: nn.Module, name: str | None = None) -> None:
        self.calls: dict[str, tuple[Tensor, Tensor, Tensor, Tensor | None]] = {}
        self._layers = {
            n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and name in (None, n)
        }

    def __enter__(self) -> dict[str, tuple[Tensor, Tensor, Tensor, Tensor | None]]:
        def hook(name: str):  # noqa: ANN202
            def record(layer: nn.Linear, args: tuple, kwargs: dict, output: Tensor) -> None:
                x = args[0] if args else next(iter(kwargs.values()))
                self.calls.pop(name, None)  # so that the last call stands last
                # Of parametrised layers, too, these are the tensors of this pass.
                self.calls[name] = x, output, layer.weight, layer.bias

            return record

        self._handles = [
            layer.register_forward_hook(hook(name), with_kwargs=True)
            for name, layer in self._layers.items()
        ]
        return self.calls

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


def last_layer(loss: PerSampleLoss, state: State, samples: Samples) -> str:
    """Return the name of the linear layer whose output is the network's, found by computing.

    Raises:
        UserError: There is none.
    """
    inputs, _ = samples[few(len(samples), 2).to(samples.device)]
    with trial(loss, samples, training=False), _Recorder(loss.model) as calls:
        outputs = loss.outputs(state, inputs)
    for name, (x, output, *_) in reversed(calls.items()):
        if x.ndim == 2 and torch.equal(output, outputs):
            return name
    raise UserError(
        f"{type(loss.model).__name__}: representer points are of a last linear layer, and no "
        "linear layer's output is the network's"
    )


@torch.no_grad()
def features(
    loss: PerSampleLoss, state: State, samples: Samples, name: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the last layer is given, the network's outputs, and the layer's weights.

    In eval mode, in float64 and on the CPU: features (n, D), with a 1 if there is a bias, outputs
    (n, K), and weights (K, D), the bias behind them.
    """
    loss.model.eval()
    layer: list[Tensor] = []

    def of_chunk(chunk: range) -> tuple[Tensor, Tensor]:
        inputs, _ = samples[chunk.start : chunk.stop]
        with _Recorder(loss.model, name) as calls:
            loss.outputs(state, inputs)
        x, output, weight, bias = calls[name]
        layer[:] = [weight] if bias is None else [weight, bias[:, None]]
        ones = x.new_ones(len(x), len(layer) - 1)
        return torch.cat([x, ones], 1).cpu().double(), output.cpu().double()

    _, batch_size = evaluation_batch(loss, state, samples, n_members=1)
    chunks = [*in_chunks(range(len(samples)), batch_size, of_chunk)]
    of_samples, outputs = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    return of_samples, outputs, torch.cat(layer, 1).cpu().double()


@dataclass(frozen=True)
class Objective:
    """F(W), of weights (K, D).

    Attributes:
        features: f, (n, D).
        targets: p, (n, K).
        l2: λ.
    """

    features: Tensor
    targets: Tensor
    l2: float

    def value(self, weights: Tensor) -> Tensor:
        """Return F(W)."""
        loss = F.cross_entropy(self.features @ weights.T, self.targets)
        return loss + self.l2 * weights.square().sum()

    def gradient(self, weights: Tensor) -> Tensor:
        """Return its gradient (K, D)."""
        errors = (self.features @ weights.T).softmax(1) - self.targets
        return errors.T @ self.features / len(errors) + 2 * self.l2 * weights

    def curvature(self, weights: Tensor, directions: Tensor) -> Tensor:
        """Return the product (K, D) of its Hessian with a direction (K, D)."""
        p, moved = (self.features @ weights.T).softmax(1), self.features @ directions.T
        of_errors = p * (moved - (p * moved).sum(1, keepdim=True))
        return of_errors.T @ self.features / len(p) + 2 * self.l2 * directions


def refit(objective: Objective, weights: Tensor) -> Tensor:
    """Return the weights (K, D) of the minimum, from the trained ones.

    Newton's method within a trust region, and then whole steps while each at least halves the
    gradient's norm: where values of F are equal to rounding, they say no more how far to trust one.

    Raises:
        DivergedError: Features, outputs or weights are not finite.
    """
    import scipy.optimize

    def of(flat) -> Tensor:  # noqa: ANN001
        return torch.from_numpy(flat).reshape(weights.shape)

    if not objective.gradient(weights).isfinite().all():
        raise DivergedError("features of the last layer, or its outputs, are not finite")
    found = scipy.optimize.minimize(
        lambda flat: objective.value(of(flat)).item(),
        weights.flatten().numpy(),
        jac=lambda flat: objective.gradient(of(flat)).flatten().numpy(),
        hessp=lambda flat, way: objective.curvature(of(flat), of(way)).flatten().numpy(),
        method="trust-ncg",
        options={"gtol": NEAR, "maxiter": MAX_ITERATIONS},
    )
    weights = of(found.x)
    gradient = objective.gradient(weights)
    for _ in range(MAX_STEPS):

        def product(rows: Tensor, at: Tensor = weights) -> Tensor:
            return objective.curvature(at, rows.reshape(at.shape)).reshape(1, -1)

        step, _ = conjugate_gradient(product, gradient.reshape(1, -1), 1e-8, gradient.numel())
        moved = weights - step.reshape(weights.shape)
        next_gradient = objective.gradient(moved)
        if not next_gradient.norm() <= gradient.norm() / 2:
            break
        weights, gradient = moved, next_gradient
    return weights
