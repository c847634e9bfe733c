"""Naive versions of every method: one model, one pair, one sample at a time, in plain PyTorch.

Nothing here uses src. Models are `nn.Module`s that hold their own parameters, training is the loop
that everyone writes, and every gradient is one call of backward. This is what the fast versions are
held against, so it is written to be checked by reading, beside section 2 of the definitions:

    L(z; θ)  cross-entropy of one sample, model in eval mode
    g(z)     its gradient over the trainable parameters

A data set is a pair of tensors: inputs (N, ...) and labels (N,).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

Data = tuple[Tensor, Tensor]
Build = Callable[[], nn.Module]

LEARNING_RATE = 1e-3
WEIGHT_DECAY = 5e-3


@dataclass(frozen=True)
class Epoch:
    """What a training leaves after an epoch: the model, its optimiser's state, its mean loss."""

    model: nn.Module
    optimizer_state: dict
    loss: float


def adam(model: nn.Module) -> torch.optim.Adam:
    """Return a fresh Adam with the paper's settings."""
    return torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)


def train(
    build: Build,
    data: Data,
    seed: int,
    n_epochs: int,
    batch_size: int = 32,
    *,
    left_out: int | None = None,
    taken_out: bool = False,
    batch_seed: int | None = None,
) -> list[Epoch]:
    """Train a model by the plain idiom and return what every epoch leaves.

    Args:
        build: Returns a freshly initialised model.
        data: The training samples.
        seed: Of torch's global generator, set before the model is built.
        n_epochs: Number of epochs.
        batch_size: Samples in a batch.
        left_out: Position of the sample whose loss is set to zero; None: none.
        taken_out: Whether it is taken out of its batches instead.
        batch_seed: Takes the batch order from what this seed would have given; None: from `seed`.
    """
    torch.manual_seed(seed)
    model = build()
    if batch_seed is not None:
        torch.manual_seed(batch_seed)
        build()
    leaving_out = {"left_out": left_out, "taken_out": taken_out}
    return continue_training(model, adam(model), data, n_epochs, batch_size, **leaving_out)


def continue_training(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Data,
    n_epochs: int,
    batch_size: int = 32,
    *,
    left_out: int | None = None,
    taken_out: bool = False,
) -> list[Epoch]:
    """Train a model further and return what every epoch leaves."""
    loader = DataLoader(
        TensorDataset(*data, torch.arange(len(data[1]))), batch_size=batch_size, shuffle=True
    )
    epochs = []
    for _ in range(n_epochs):
        model.train()
        total = 0.0
        for inputs, labels, positions in loader:
            if taken_out and left_out in positions:
                losses = losses_of_some(model, inputs, labels, positions != left_out)
            else:
                losses = F.cross_entropy(model(inputs), labels, reduction="none")
                losses = (
                    torch.where(positions == left_out, 0.0, losses)
                    if left_out is not None
                    else losses
                )
            optimizer.zero_grad()
            (losses.sum() / len(labels)).backward()
            optimizer.step()
            total += losses.sum().item()
        epochs.append(
            Epoch(copy.deepcopy(model), copy.deepcopy(optimizer.state_dict()), total / len(data[1]))
        )
    return epochs


def losses_of_some(model: nn.Module, inputs: Tensor, labels: Tensor, which: Tensor) -> Tensor:
    """Return the losses of some samples of a batch in a pass over them alone.

    The pass begins with torch's generator where one over the full batch would begin, and leaves it
    where that one would: the batches and masks that follow are those of a training that leaves
    nothing out.
    """
    start = torch.get_rng_state()
    copy.deepcopy(model)(inputs)
    end = torch.get_rng_state()
    torch.set_rng_state(start)
    losses = F.cross_entropy(model(inputs[which]), labels[which], reduction="none")
    torch.set_rng_state(end)
    return losses


def sample_loss(model: nn.Module, data: Data, i: int) -> Tensor:
    """Return L(z; θ) of sample i."""
    model.eval()
    inputs, labels = data
    return F.cross_entropy(model(inputs[i : i + 1]), labels[i : i + 1])


def gradient(model: nn.Module, data: Data, i: int) -> Tensor:
    """Return g(z) of sample i as one vector (P,), by one backward pass."""
    model.zero_grad(set_to_none=True)
    sample_loss(model, data, i).backward()
    found = [
        torch.zeros_like(p) if p.grad is None else p.grad.to_dense()
        for p in model.parameters()
        if p.requires_grad
    ]
    return torch.cat([g.flatten() for g in found])


def gradients(model: nn.Module, data: Data, which: list[int] | None = None) -> Tensor:
    """Return the gradients (N, P) of the samples at positions `which`, or of all."""
    which = range(len(data[1])) if which is None else which
    return torch.stack([gradient(model, data, i) for i in which])


def loo(
    build: Build,
    train_data: Data,
    test_data: Data,
    pairs: list[tuple[int, int]],
    seed: int,
    n_epochs: int,
    kept_epochs: list[int],
    batch_size: int = 32,
    batch_seed: int | None = None,
    *,
    taken_out: bool = False,
) -> Tensor:
    """Return L(z; θ_∖j) − L(z; θ) of pairs (j, z) at every kept epoch, (C, n_pairs).

    z_j's loss is set to zero, or it is `taken_out` of its batches.
    """
    settings = {"batch_size": batch_size, "batch_seed": batch_seed}
    full = train(build, train_data, seed, n_epochs, **settings)
    retrained = {
        j: train(build, train_data, seed, n_epochs, left_out=j, taken_out=taken_out, **settings)
        for j in {j for j, _ in pairs}
    }
    return torch.tensor(
        [
            [
                sample_loss(retrained[j][epoch].model, test_data, z).item()
                - sample_loss(full[epoch].model, test_data, z).item()
                for j, z in pairs
            ]
            for epoch in kept_epochs
        ],
        dtype=torch.float64,
    )


def loo_continued(
    checkpoints: list[nn.Module],
    train_data: Data,
    test_data: Data,
    pairs: list[tuple[int, int]],
    batch_seed: int,
    n_epochs: int,
    batch_size: int = 32,
) -> Tensor:
    """Return LOO scores (C, n_pairs) of the published protocol.

    Every checkpoint is trained for `n_epochs` more, with a fresh optimiser and z_j's loss zero.
    """
    scores = []
    for checkpoint in checkpoints:
        retrained = {}
        for j in {j for j, _ in pairs}:
            model = copy.deepcopy(checkpoint)
            torch.manual_seed(batch_seed)
            retrained[j] = continue_training(
                model, adam(model), train_data, n_epochs, batch_size, left_out=j
            )[-1].model
        scores.append(
            [
                sample_loss(retrained[j], test_data, z).item()
                - sample_loss(checkpoint, test_data, z).item()
                for j, z in pairs
            ]
        )
    return torch.tensor(scores, dtype=torch.float64)


def ats(
    model: nn.Module, train_data: Data, test_data: Data, pairs: list[tuple[int, int]]
) -> Tensor:
    """Return L(z; θ_+j) − L(z; θ) of pairs (j, z), (n_pairs,)."""
    scores = []
    for j, z in pairs:
        stepped = copy.deepcopy(model)
        optimizer = adam(stepped)
        optimizer.zero_grad()
        sample_loss(stepped, train_data, j).backward()
        optimizer.step()
        scores.append(
            sample_loss(stepped, test_data, z).item() - sample_loss(model, test_data, z).item()
        )
    return torch.tensor(scores, dtype=torch.float64)


def grad_dot(
    model: nn.Module, train_data: Data, test_data: Data, pairs: list[tuple[int, int]]
) -> Tensor:
    """Return g(z)ᵀ g(z_j) of pairs (j, z), (n_pairs,)."""
    return torch.stack(
        [gradient(model, test_data, z) @ gradient(model, train_data, j) for j, z in pairs]
    )


def grad_cos(
    model: nn.Module, train_data: Data, test_data: Data, pairs: list[tuple[int, int]]
) -> Tensor:
    """Return the cosine of g(z) and g(z_j) of pairs (j, z), (n_pairs,)."""
    return torch.stack(
        [
            F.cosine_similarity(
                gradient(model, test_data, z), gradient(model, train_data, j), dim=0, eps=0
            )
            for j, z in pairs
        ]
    )


def mean_loss(model: nn.Module, data: Data) -> Tensor:
    """Return the mean loss of a data set, in eval mode."""
    model.eval()
    return F.cross_entropy(model(data[0]), data[1])


def hessian_vector_product(model: nn.Module, data: Data, vector: Tensor) -> Tensor:
    """Return the Hessian of the mean loss times a vector (P,), by two backward passes."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    first = torch.autograd.grad(
        mean_loss(model, data), parameters, create_graph=True, materialize_grads=True
    )
    product = torch.cat([g.flatten() for g in first]) @ vector
    second = torch.autograd.grad(product, parameters, materialize_grads=True)
    return torch.cat([g.flatten() for g in second])


def hessian(model: nn.Module, data: Data) -> Tensor:
    """Return the Hessian (P, P) of the mean loss, a row for each unit vector."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    identity = torch.eye(sum(p.numel() for p in parameters), dtype=parameters[0].dtype)
    return torch.stack([hessian_vector_product(model, data, row) for row in identity])


def lissa(
    model: nn.Module, data: Data, vector: Tensor, damp: float = 5e-3, scale: float = 1e4
) -> Tensor:
    """Return what one pass of LiSSA over batches of 8, in stored order, makes of a vector (P,)."""
    inputs, labels = data
    h = vector
    for start in range(0, len(labels), 8):
        batch = inputs[start : start + 8], labels[start : start + 8]
        h = vector + (1 - damp) * h - hessian_vector_product(model, batch, h) / scale
    return h / scale


def influence_lissa(
    model: nn.Module,
    train_data: Data,
    test_data: Data,
    pairs: list[tuple[int, int]],
    damp: float = 5e-3,
    scale: float = 1e4,
) -> Tensor:
    """Return −LiSSA(g(z))ᵀ g(z_j) of pairs (j, z), (n_pairs,)."""
    solved = {
        z: lissa(model, train_data, gradient(model, test_data, z), damp, scale)
        for z in {z for _, z in pairs}
    }
    return torch.stack([-(solved[z] @ gradient(model, train_data, j)) for j, z in pairs])


def influence_exact(
    model: nn.Module,
    train_data: Data,
    test_data: Data,
    pairs: list[tuple[int, int]],
    damp: float = 5e-3,
) -> Tensor:
    """Return −g(z)ᵀ (H + damp I)⁻¹ g(z_j) of pairs (j, z), by numpy's dense solve, (n_pairs,)."""
    matrix = hessian(model, train_data).numpy()
    matrix = matrix + damp * np.eye(len(matrix), dtype=matrix.dtype)
    scores = [
        -gradient(model, test_data, z).numpy()
        @ np.linalg.solve(matrix, gradient(model, train_data, j).numpy())
        for j, z in pairs
    ]
    return torch.from_numpy(np.array(scores))


def influence_cg(
    model: nn.Module,
    train_data: Data,
    test_data: Data,
    pairs: list[tuple[int, int]],
    damp: float = 5e-3,
    tolerance: float = 1e-12,
) -> Tensor:
    """Return −g(z)ᵀ (H + damp I)⁻¹ g(z_j) of pairs (j, z), by scipy's conjugate gradient.

    H + damp I has to be positive definite.
    """
    n = sum(p.numel() for p in model.parameters() if p.requires_grad)

    def matvec(x: np.ndarray) -> np.ndarray:
        vector = torch.from_numpy(x).to(next(model.parameters()).dtype)
        return (hessian_vector_product(model, train_data, vector) + damp * vector).numpy()

    operator = scipy.sparse.linalg.LinearOperator((n, n), matvec, dtype=np.float64)
    scores = []
    for j, z in pairs:
        solution, failed = scipy.sparse.linalg.cg(
            operator, gradient(model, train_data, j).numpy(), rtol=tolerance, maxiter=20 * n
        )
        assert not failed
        scores.append(-gradient(model, test_data, z).numpy() @ solution)
    return torch.from_numpy(np.array(scores))


def tracin(
    build: Build,
    train_data: Data,
    test_data: Data,
    pairs: list[tuple[int, int]],
    seed: int,
    n_epochs: int,
    kept_epochs: list[int],
    batch_size: int = 32,
    *,
    by_epochs: bool = False,
    decay: bool = False,
) -> Tensor:
    """Return the sums of TracIn up to every kept epoch of pairs (j, z), (C, n_pairs).

    A training whose steps that hold j each add (learning rate / size of the batch) g(z)ᵀ g(j), or
    whose epochs each add the mean of their learning rates times it.

    Args:
        build: Returns a freshly initialised model.
        train_data: The training samples.
        test_data: The test samples.
        pairs: Pairs (j, z).
        seed: Of torch's global generator, set before the model is built.
        n_epochs: Number of epochs.
        kept_epochs: Up to which sums are returned.
        batch_size: Samples in a batch.
        by_epochs: Whether gradients are those after epochs.
        decay: Whether the learning rate decays linearly to 0.
    """
    torch.manual_seed(seed)
    model = build()
    optimizer = adam(model)
    data = TensorDataset(*train_data, torch.arange(len(train_data[1])))
    loader = DataLoader(data, batch_size=batch_size, shuffle=True)
    n_steps, step = n_epochs * len(loader), 0
    sums, kept = torch.zeros(len(pairs), dtype=torch.float64), []
    for epoch in range(n_epochs):
        rates = []
        for inputs, labels, positions in loader:
            if decay:
                optimizer.param_groups[0]["lr"] = LEARNING_RATE * (n_steps - step) / n_steps
            rates.append(optimizer.param_groups[0]["lr"])
            for i, (j, z) in enumerate(pairs if not by_epochs else []):
                if j in positions:
                    product = gradient(model, test_data, z) @ gradient(model, train_data, j)
                    sums[i] += rates[-1] / len(positions) * product
            model.train()
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            step += 1
        if by_epochs:
            for i, (j, z) in enumerate(pairs):
                product = gradient(model, test_data, z) @ gradient(model, train_data, j)
                sums[i] += np.mean(rates) * product
        if epoch in kept_epochs:
            kept.append(sums.clone())
    return torch.stack(kept)


def jacobian(model: nn.Module, inputs: Tensor, i: int) -> Tensor:
    """Return the Jacobian (d, P) of the outputs of sample i, by one backward pass for each."""
    model.eval()
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = [
        torch.autograd.grad(output, parameters, retain_graph=True, materialize_grads=True)
        for output in model(inputs[i : i + 1]).flatten()
    ]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


def similarity(
    model: nn.Module, train_data: Data, test_data: Data, pairs: list[tuple[int, int]]
) -> Tensor:
    """Return trace(K(z,z)^-1/2 K(z,z_j) K(z_j,z_j)^-1/2) / d of pairs (j, z), (n_pairs,).

    By scipy's matrix powers; no K(z,z) may be singular.
    """
    power = scipy.linalg.fractional_matrix_power
    scores = []
    for j, z in pairs:
        of_z = jacobian(model, test_data[0], z).double().numpy()
        of_j = jacobian(model, train_data[0], j).double().numpy()
        left, right = power(of_z @ of_z.T, -0.5), power(of_j @ of_j.T, -0.5)
        scores.append(np.trace(left @ of_z @ of_j.T @ right) / len(of_z))
    return torch.from_numpy(np.array(scores))


def representer(
    model: nn.Module,
    layer: nn.Linear,
    train_data: Data,
    test_data: Data,
    pairs: list[tuple[int, int]],
    l2: float = 3e-3,
) -> Tensor:
    """Return alpha_jy f_j^T f_z of pairs (j, z), y the label of z, (n_pairs,).

    The last layer is refitted by Newton's method with torch's dense Hessian.
    """

    def features_and_logits(data: Data, i: int) -> tuple[Tensor, Tensor]:
        seen = []
        hook = layer.register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
        with torch.no_grad():
            sample_loss(model, data, i)
        hook.remove()
        x, logits = (t[0].double() for t in seen[0])
        return (x if layer.bias is None else torch.cat([x, torch.ones(1).double()])), logits

    n = len(train_data[1])
    rows = [features_and_logits(train_data, i) for i in range(n)]
    features, soft = torch.stack([f for f, _ in rows]), torch.stack([z for _, z in rows]).softmax(1)

    def objective(flat: Tensor) -> Tensor:
        weights = flat.reshape(soft.shape[1], features.shape[1])
        total = sum(-(soft[i] * (weights @ features[i]).log_softmax(0)).sum() / n for i in range(n))
        return total + l2 * (weights**2).sum()

    weights = torch.zeros(soft.shape[1] * features.shape[1]).double()
    for _ in range(20):
        step = torch.autograd.functional.jacobian(objective, weights)
        weights -= torch.linalg.solve(torch.autograd.functional.hessian(objective, weights), step)
    assert torch.autograd.functional.jacobian(objective, weights).norm() < 1e-12
    weights = weights.reshape(soft.shape[1], features.shape[1])
    scores = []
    for j, z in pairs:
        alpha = -((weights @ features[j]).softmax(0) - soft[j]) / (2 * l2 * n)
        f_z, _ = features_and_logits(test_data, z)
        scores.append(alpha[test_data[1][z]] * (features[j] @ f_z))
    return torch.stack(scores)
