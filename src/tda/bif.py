"""Bayesian influence function: how losses vary together around θ (Kreer et al. 2025).

    τ(z_j, z) = n Cov(L(z_j; w), L(z; w)),  w ~ exp(−Σ_i L(z_i; w) − γ/2 ‖w − θ‖²)

n is the number of training samples. Weighing z_j's loss a little less changes the expectation of
L(z; w) under this distribution by the covariance, so it is leave-one-out of a distribution, without
a Hessian (the paper's sign is the other one). Positive: z_j helps z.

The draws are those of chains of stochastic gradient Langevin dynamics (Welling and Teh 2011), all
of which begin at θ. With step size ε and U the negative logarithm above,

    w ← w − ε/2 ∇U(w) + √ε N(0, 1)

Losses are those in eval mode. γ is what holds the chains at θ: along what the losses do not rest on
a parameter's standard deviation is 1/√γ. The larger γ, the more the score is grad-dot, times n/γ.
How far the chains came, and whether they agree, is saved. So is whether ε is small enough: where U
curves by λ, a step multiplies the gradient by 1 − ελ/2, so that successive gradients of the losses
point against each other where ελ > 2. The variance is then 1/(1 − ελ/4) times what it should be,
at least twice as much, and there is none from ελ = 4 on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.batching import find_whether_together
from src.ensemble.evaluation import evaluate
from src.ensemble.members import Params, PerSampleLoss, Stack, State, repeat, size
from src.ensemble.memory import gradient_batch, in_chunks
from src.errors import DivergedError, UserError
from src.tda.chains import Covariance, effective_sample_size, split_r_hat
from src.tda.estimator import Draws, Scores, each_checkpoint, stacked


@dataclass(frozen=True)
class Langevin:
    """How chains are drawn.

    Attributes:
        chains: Number of chains.
        draws: States kept of each.
        burn_in: Steps before the first of them.
        thinning: Steps from one to the next.
        step: Step size ε.
        gamma: Strength γ of what holds a chain at θ.
        batch: Training samples in a step, drawn anew for each chain and with replacement, whose
            loss stands for that of all; where there are no more, all of them.
    """

    chains: int
    draws: int
    burn_in: int
    thinning: int
    step: float
    gamma: float
    batch: int


@dataclass(frozen=True)
class BayesianInfluence:
    """The estimator `bif`.

    Attributes:
        chunk_size: Training samples differentiated at once, of all chains together; None: what
            fits.

    The others are those of `Langevin`.

    Raises:
        UserError: There is a single draw, which has no covariance.
    """

    methods: ClassVar[tuple[str, ...]] = ("bif",)
    retrains: ClassVar[bool] = False

    chains: int = 4
    draws: int = 50
    burn_in: int = 20
    thinning: int = 2
    step: float = 2e-4
    gamma: float = 1e3
    batch: int = 512
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        """Check that there is a covariance."""
        if self.chains * self.draws < 2:
            raise UserError("bif needs two draws: give more by --bif_chains or --bif_draws")

    def settings(self) -> dict:
        """Return every option that changes the numbers."""
        return {f"bif_{name}": value for name, value in vars(self.langevin).items()}

    @property
    def langevin(self) -> Langevin:
        """How the chains are drawn."""
        names = Langevin.__dataclass_fields__
        return Langevin(**{name: getattr(self, name) for name in names})

    def __call__(self, draws: Draws) -> dict[str, Scores]:
        """Return the scores of all pairs at all checkpoints."""
        setup = draws.setup
        # Each checkpoint's noise is its own.
        of_seed = torch.Generator().manual_seed(draws.seed)
        seeds = torch.randint(2**31, (len(draws.checkpoints),), generator=of_seed).tolist()

        def of_checkpoint(checkpoint: State) -> tuple[Tensor, dict[str, Tensor]]:
            seed = seeds[len(draws.pieces.done)]
            return bayesian_influence(
                setup.loss,
                checkpoint,
                setup.train,
                setup.scored_samples,
                setup.test,
                self.langevin,
                generator=torch.Generator(setup.device).manual_seed(seed),
                chunk_size=self.chunk_size,
                measure=setup.measure,
            )

        scores, known = stacked(each_checkpoint(draws, of_checkpoint, f"bif seed {draws.seed}"))
        message = (
            f"mean training loss {known['loss_of_chains'].mean():.3g} along the chains, "
            f"{known['loss_at_start'].mean():.3g} where they began; of test losses effective "
            f"sample size {known['effective_sample_size'].median():.0f} of "
            f"{self.chains * self.draws}, R-hat {known['r_hat'].median():.2f} (medians); cosine of "
            f"successive gradients {known['gradient_cosine'].min():.2f} (least of checkpoints)"
        )
        if (known["gradient_cosine"] < 0).any():
            message += ": steps overshoot, lower --bif_step"
        return {"bif": Scores(scores, known, message)}


def bayesian_influence(
    loss: PerSampleLoss,
    checkpoint: State,
    train: Samples,
    scored: Samples,
    test: Samples,
    langevin: Langevin,
    *,
    generator: torch.Generator,
    chunk_size: int | None = None,
    measure: PerSampleLoss | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the scores (n_scored, n_test) of all pairs at one checkpoint, and what was reached.

    Args:
        loss: The per-sample loss.
        checkpoint: State θ.
        train: The training samples, whose losses the chains follow.
        scored: Those of them that are scored.
        test: The test samples.
        langevin: How the chains are drawn.
        generator: What noise and batches are drawn from, on the samples' device.
        chunk_size: Training samples differentiated at once, of all chains together; None: what
            fits.
        measure: What of a test sample is attributed; None: the loss.

    Returns:
        The scores, float32, and numbers by name. "loss_at_start", "loss_of_chains": mean loss of
        the scored samples at θ, and over all draws; "gradient_cosine": of the losses' gradients at
        a draw and a step before it, mean over chains and draws; "effective_sample_size" and "r_hat"
        (n_test,) of each test sample's loss.

    Raises:
        DivergedError: A loss along a chain is not finite.
    """
    of_test, params = (measure or loss).accurate.at(checkpoint)
    loss, _ = loss.accurate.at(checkpoint)
    at_start = evaluate(loss, repeat(params, 1), scored).double().mean()
    covariance, means, of_draws, cosines = Covariance(), [], [], []
    for members, cosine in sample_chains(loss, params, train, langevin, generator, chunk_size):
        losses = evaluate(loss, members, scored).cpu().double()
        of_draws.append(evaluate(of_test, members, test).cpu().double())
        covariance.add(losses, of_draws[-1])
        cosines.append(cosine)
        means.append(losses.mean())
        if not means[-1].isfinite():
            raise DivergedError(
                f"a chain's loss is not finite after {len(means)} draws: lower --bif_step, or "
                "raise --bif_gamma"
            )
    trace = torch.stack(of_draws, 1)  # (chains, draws, n_test)
    known = {
        "loss_at_start": at_start.cpu(),
        "loss_of_chains": torch.stack(means).mean(),
        "gradient_cosine": torch.stack(cosines).nanmean(),
        "effective_sample_size": effective_sample_size(trace),
        "r_hat": split_r_hat(trace),
    }
    return len(train) * covariance.value.float(), known


def sample_chains(
    loss: PerSampleLoss,
    params: Params,
    train: Samples,
    langevin: Langevin,
    generator: torch.Generator,
    chunk_size: int | None = None,
) -> Iterator[tuple[Stack, Tensor]]:
    """Yield the stack of all chains, which is changed in place, at each draw that is kept.

    Beside it stand the cosines (chains,) of the losses' gradients in the last two steps, on the
    CPU: NaN in the first, and where a gradient is 0.

    In every step the generator gives the chains' batches (chains, batch), where these are not all
    samples, and then each parameter's noise, in the order of the model.

    Args: See `bayesian_influence`.
    """
    members = {n: t.clone() for n, t in repeat(params, langevin.chains).items()}
    before = {name: torch.zeros_like(p) for name, p in members.items()}
    n_steps = langevin.burn_in + langevin.thinning * (langevin.draws - 1) + 1
    for number in range(n_steps):
        positions = None
        if len(train) > langevin.batch:
            shape = langevin.chains, langevin.batch
            positions = torch.randint(
                len(train), shape, generator=generator, device=generator.device
            )
        gradients = summed_gradients(loss, members, train, positions, chunk_size)
        for name, p in members.items():
            noise = torch.randn(
                p.shape, generator=generator, device=generator.device, dtype=p.dtype
            )
            slope = gradients[name].add(p - params[name], alpha=langevin.gamma)  # of U
            p.add_(slope, alpha=-langevin.step / 2).add_(noise, alpha=langevin.step**0.5)
        kept, since = divmod(number - langevin.burn_in, langevin.thinning)
        if kept >= 0 and since == 0:
            yield members, _cosines(gradients, before)
        before = gradients


def _cosines(a: Stack, b: Stack) -> Tensor:
    """Return the cosine of each member's two vectors, (M,); NaN where one is 0."""

    def products(x: Stack, y: Stack) -> Tensor:
        own = torch.stack([(x[name] * y[name]).flatten(1).sum(1) for name in x])
        # The product of two of them overflows in float32, and not every device has float64.
        return own.cpu().double().sum(0)

    return products(a, b) / (products(a, a) * products(b, b)).sqrt()


def summed_gradients(
    loss: PerSampleLoss,
    members: Stack,
    train: Samples,
    positions: Tensor | None,
    chunk_size: int | None = None,
) -> Stack:
    """Return the gradient of the summed training loss of each of M members, in eval mode.

    Args:
        loss: The per-sample loss.
        members: The members' trainable parameters.
        train: The training samples.
        positions: Positions (M, B) of each member's batch, whose mean loss stands for that of all;
            None: all samples.
        chunk_size: Training samples differentiated at once, of all members; None: what fits.
    """
    loss.model.eval()
    of_one = {name: p[0] for name, p in members.items()}
    at_once = chunk_size or gradient_batch(loss, of_one, train)
    gradients = {name: torch.zeros_like(p) for name, p in members.items()}
    own_batches = positions is not None
    n_samples = positions.shape[1] if own_batches else len(train)

    def add(chunk: range) -> None:
        if own_batches:
            of_each = positions[:, chunk.start : chunk.stop]
            flat, labels = train[of_each.flatten()]
            inputs = flat.unflatten(0, of_each.shape)
            labels = labels.unflatten(0, of_each.shape)
            tried = inputs[0], labels[0]
        else:
            inputs, labels = tried = train[chunk.start : chunk.stop]
        leaves = {name: p.detach().requires_grad_() for name, p in members.items()}
        with torch.enable_grad():
            find_whether_together(loss, leaves, *tried, own_batches=own_batches)
            losses, _ = loss.forward_of_members(leaves, inputs, labels, own_batches=own_batches)
            # Members share no parameter, so the gradient of the sum is each member's own.
            found = torch.autograd.grad(
                losses.sum(), [*leaves.values()], materialize_grads=True, allow_unused=True
            )
        for total, g in zip(gradients.values(), found, strict=True):
            total.add_(g, alpha=len(train) / n_samples)

    for _ in in_chunks(range(n_samples), max(1, at_once // size(members)), add):
        pass
    return gradients
