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
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
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


def gauss_newton(model: nn.Module, data: Data) -> Tensor:
    """Return the Gauss–Newton matrix (P, P) of the mean cross-entropy, Σ Jᵀ (diag p − p pᵀ) J / n.

    The factor in the middle is the cross-entropy's Hessian by the logits.
    """
    total = 0.0
    for i in range(len(data[1])):
        rows = jacobian(model, data[0], i)
        p = torch.softmax(model(data[0][i : i + 1])[0].detach(), 0)
        total = total + rows.T @ (torch.diag(p) - torch.outer(p, p)) @ rows
    return total / len(data[1])


def influence_gauss_newton(
    model: nn.Module,
    train_data: Data,
    test_data: Data,
    pairs: list[tuple[int, int]],
    damp: float = 5e-3,
) -> Tensor:
    """Return −g(z)ᵀ (G + damp I)⁻¹ g(z_j) of pairs (j, z), by numpy's dense solve, (n_pairs,)."""
    matrix = gauss_newton(model, train_data).numpy()
    matrix = matrix + damp * np.eye(len(matrix), dtype=matrix.dtype)
    scores = [
        -gradient(model, test_data, z).numpy()
        @ np.linalg.solve(matrix, gradient(model, train_data, j).numpy())
        for j, z in pairs
    ]
    return torch.from_numpy(np.array(scores))


def rows_of_layers(
    model: nn.Module, inputs: Tensor, label: Tensor, criterion: Callable = F.cross_entropy
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return what trainable linear layers and convolutions see of one sample, by their names.

    That is inputs a (T, I), with a 1 at their end if there is a bias, and output gradients b (T, O)
    at each position; a convolution's inputs are patches.
    """
    kinds = nn.Linear, nn.Conv2d
    layers = {
        name: m
        for name, m in model.named_modules()
        if isinstance(m, kinds) and m.weight.requires_grad
    }
    seen = {}

    def keep(name: str) -> Callable:
        def hook(layer: nn.Module, given: tuple[Tensor], output: Tensor) -> None:
            output.retain_grad()
            seen[name] = given[0].detach(), output

        return hook

    handles = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    model.eval()
    criterion(model(inputs), label).backward()
    for handle in handles:
        handle.remove()
    rows = {}
    for name, (x, output) in seen.items():
        layer, gradient = layers[name], output.grad
        if isinstance(layer, nn.Conv2d):
            a = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)[0].T
            b = gradient.flatten(2)[0].T
        else:
            a, b = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        if layer.bias is not None:
            a = torch.cat([a, torch.ones(len(a), 1, dtype=a.dtype)], 1)
        rows[name] = a, b
    return rows


def inverse_ekfac(
    model: nn.Module, drawn: Data, damp: float, criterion: Callable = F.cross_entropy
) -> Tensor:
    """Return (G + λ I)⁻¹ (P, P), G by EK-FAC from samples with targets that the model gives.

    A layer's gradient is a matrix (O, I). With U the Kronecker product of the eigenvectors of
    Σ b bᵀ and Σ a aᵀ, its block is U diag(mean (Uᵀ g)²) Uᵀ. Of parameters of other layers the block
    is diag(mean g²). λ is `damp` times the mean eigenvalue of the layer.
    """
    inputs, targets = drawn
    samples = [
        rows_of_layers(model, inputs[i : i + 1], targets[i : i + 1], criterion)
        for i in range(len(targets))
    ]
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    shapes = {name: model.get_parameter(name).shape for name in names}
    first, n = {}, 0
    for name in names:
        first[name] = n
        n += shapes[name].numel()
    inverse = torch.zeros(n, n, dtype=next(model.parameters()).dtype)
    left = dict.fromkeys(names)
    for layer in samples[0]:
        weight, bias = f"{layer}.weight", f"{layer}.bias"
        a = np.linalg.eigh(sum(s[layer][0].T @ s[layer][0] for s in samples).numpy())[1]
        b = np.linalg.eigh(sum(s[layer][1].T @ s[layer][1] for s in samples).numpy())[1]
        basis = torch.from_numpy(np.kron(b, a))
        squares = [(basis.T @ (s[layer][1].T @ s[layer][0]).flatten()).square() for s in samples]
        values = sum(squares) / len(squares)
        block = basis @ torch.diag(1 / (values + damp * values.mean())) @ basis.T
        # Where each entry of the layer's matrix (O, I) stands among all parameters.
        at = first[weight] + torch.arange(shapes[weight].numel()).reshape(len(b), -1)
        del left[weight]
        if bias in first:
            at = torch.cat([at, (first[bias] + torch.arange(len(b)))[:, None]], 1)
            del left[bias]
        inverse[at.flatten()[:, None], at.flatten()] = block
    modules = {name: name.rpartition(".")[0] or name for name in left}
    for module in set(modules.values()):
        at = torch.cat(
            [first[m] + torch.arange(shapes[m].numel()) for m in left if modules[m] == module]
        )
        squares = []
        for i in range(len(targets)):
            model.zero_grad()
            criterion(model(inputs[i : i + 1]), targets[i : i + 1]).backward()
            g = torch.cat([model.get_parameter(name).grad.flatten() for name in names])
            squares.append(g[at].square())
        values = sum(squares) / len(squares)
        inverse[at, at] = 1 / (values + damp * values.mean())
    return inverse


def influence_ekfac(
    model: nn.Module,
    train_data: Data,
    test_data: Data,
    pairs: list[tuple[int, int]],
    drawn: Data,
    damp: float = 0.1,
) -> Tensor:
    """Return −g(z)ᵀ (G + λ I)⁻¹ g(z_j) of pairs (j, z), (n_pairs,)."""
    inverse = inverse_ekfac(model, drawn, damp)
    return torch.stack(
        [
            -(gradient(model, test_data, z) @ inverse @ gradient(model, train_data, j))
            for j, z in pairs
        ]
    )


def trak(
    model: nn.Module,
    train_data: Data,
    test_data: Data,
    pairs: list[tuple[int, int]],
    projection: Tensor,
    damp: float,
) -> Tensor:
    """Return φ(z)ᵀ (ΦᵀΦ + λ I)⁻¹ φ(z_j) (1 − p_j) of pairs (j, z), (n_pairs,).

    φ = P ∇ log(p_y / (1 − p_y)) with P (k, P), and λ is `damp` times the mean eigenvalue of ΦᵀΦ.
    """
    model.eval()
    parameters = [p for p in model.parameters() if p.requires_grad]

    def probability(data: Data, i: int) -> Tensor:
        return torch.softmax(model(data[0][i : i + 1])[0], 0)[data[1][i]]

    def feature(data: Data, i: int) -> Tensor:
        p = probability(data, i)
        found = torch.autograd.grad((p / (1 - p)).log(), parameters, materialize_grads=True)
        return projection.to(p) @ torch.cat([g.flatten() for g in found])

    features = torch.stack([feature(train_data, i) for i in range(len(train_data[1]))]).numpy()
    gram = features.T @ features
    gram = gram + damp * np.trace(gram) / len(gram) * np.eye(len(gram), dtype=gram.dtype)
    scores = [
        feature(test_data, z).numpy()
        @ np.linalg.solve(gram, features[j])
        * (1 - probability(train_data, j).item())
        for j, z in pairs
    ]
    return torch.from_numpy(np.array(scores))


def unrolled(
    build: Build,
    train_data: Data,
    test_data: Data,
    pairs: list[tuple[int, int]],
    seed: int,
    n_epochs: int,
    kept_epochs: list[int],
    batch_size: int = 32,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] | None = None,
    scheduler: Callable[[torch.optim.Optimizer], LRScheduler] | None = None,
) -> Tensor:
    """Return -dL(z; θ(w)) / dw_j of pairs (j, z) at every kept epoch, (C, n_pairs).

    torch's own optimiser, made to be differentiable, keeps the graph of the whole training, and
    each test sample's loss is differentiated backwards through all of it.
    """
    optimizer = optimizer or (
        lambda params: torch.optim.Adam(
            params, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, differentiable=True
        )
    )
    torch.manual_seed(seed)
    model = build()
    inputs, labels = train_data
    dtype = next(model.parameters()).dtype
    weights = torch.ones(len(labels), dtype=dtype, requires_grad=True)
    # Steps are taken in place: each pass gets copies, and the first ones are no leaves.
    params = {n: p.detach().clone().requires_grad_() * 1 for n, p in model.named_parameters()}
    steps = optimizer([*params.values()])
    schedule = scheduler(steps) if scheduler else None
    loader = DataLoader(TensorDataset(torch.arange(len(labels))), batch_size, shuffle=True)

    def losses(inputs: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        now = {name: p.clone() for name, p in params.items()}
        outputs = torch.func.functional_call(model, now, (inputs,))
        return F.cross_entropy(outputs, labels, reduction="none"), now

    scores = []
    for epoch in range(n_epochs):
        for (batch,) in loader:
            model.train()
            of_batch, now = losses(inputs[batch], labels[batch])
            mean = (of_batch * weights[batch]).sum() / len(batch)
            found = torch.autograd.grad(mean, [*now.values()], create_graph=True)
            for p, g in zip(params.values(), found, strict=True):
                p.grad = g
            # Of this type it counts its steps, and computes how far moments are from their limits.
            torch.set_default_dtype(torch.float64)
            steps.step()
            torch.set_default_dtype(torch.float32)
            if schedule is not None:
                schedule.step()
        if epoch in kept_epochs:
            model.eval()
            rows = {}
            for z in {z for _, z in pairs}:
                of_sample, _ = losses(test_data[0][z : z + 1], test_data[1][z : z + 1])
                (rows[z],) = torch.autograd.grad(of_sample.sum(), weights, retain_graph=True)
            scores.append(torch.stack([-rows[z][j] for j, z in pairs]))
    return torch.stack(scores)


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
    for _ in range(30):
        gradient = torch.autograd.functional.jacobian(objective, weights)
        hessian = torch.autograd.functional.hessian(objective, weights)
        step = torch.linalg.solve(hessian, gradient)
        # Where features are large a whole step can lead away.
        while gradient.norm() > 1e-9 and objective(weights - step) > objective(weights):
            step /= 2
        weights -= step
    assert torch.autograd.functional.jacobian(objective, weights).norm() < 1e-12
    weights = weights.reshape(soft.shape[1], features.shape[1])
    scores = []
    for j, z in pairs:
        alpha = -((weights @ features[j]).softmax(0) - soft[j]) / (2 * l2 * n)
        f_z, _ = features_and_logits(test_data, z)
        scores.append(alpha[test_data[1][z]] * (features[j] @ f_z))
    return torch.stack(scores)


def bif(
    model: nn.Module,
    train_data: Data,
    test_data: Data,
    pairs: list[tuple[int, int]],
    generator: torch.Generator,
    *,
    chains: int,
    draws: int,
    burn_in: int,
    thinning: int,
    step: float,
    gamma: float,
    batch: int,
) -> Tensor:
    """Return n Cov(L(z_j; w), L(z; w)) of pairs (j, z) over Langevin draws, (n_pairs,).

    One chain, one sample and one gradient at a time. The generator gives, in every step and for all
    chains at once, their batches (where these are not all samples) and each parameter's noise.
    """
    n = len(train_data[1])
    models = [copy.deepcopy(model) for _ in range(chains)]
    start = [p.detach().clone() for p in model.parameters()]
    train_losses, test_losses = [], []
    for number in range(burn_in + thinning * (draws - 1) + 1):
        batches = [range(n)] * chains
        if n > batch:
            batches = torch.randint(n, (chains, batch), generator=generator).tolist()
        noises = [
            torch.randn((chains, *p.shape), generator=generator, dtype=p.dtype) for p in start
        ]
        for c, chain in enumerate(models):
            slope = sum(gradient(chain, train_data, i) for i in batches[c]) * n / len(batches[c])
            slopes = slope.split([p.numel() for p in start])
            with torch.no_grad():
                for p, at, g, noise in zip(chain.parameters(), start, slopes, noises, strict=True):
                    g = g.view_as(p) + gamma * (p - at)
                    p.copy_(p - step / 2 * g + step**0.5 * noise[c])
        if number >= burn_in and (number - burn_in) % thinning == 0:
            for chain in models:
                for losses, data in ((train_losses, train_data), (test_losses, test_data)):
                    of_chain = [sample_loss(chain, data, i).item() for i in range(len(data[1]))]
                    losses.append(of_chain)
    a, b = np.array(train_losses), np.array(test_losses)
    return torch.tensor([n * np.cov(a[:, j], b[:, z])[0, 1] for j, z in pairs])


def datamodelling_score(scores: Tensor, masks: Tensor, losses: Tensor) -> float:
    """Return the linear datamodelling score of one matrix of scores, a number at a time.

    Args:
        scores: Positive helps, (n_train, n_test).
        masks: Members of the subsets, bool (K, n_train).
        losses: Losses of models trained on them, (K, n_test).
    """
    found = []
    for z in range(scores.shape[1]):
        sums = [
            math.fsum(scores[j, z].item() for j in range(len(scores)) if mask[j]) for mask in masks
        ]
        negative = [-losses[k, z].item() for k in range(len(masks))]
        if len(set(negative)) == 1:
            continue
        constant = len(set(sums)) == 1
        found.append(0.0 if constant else spearmanr(sums, negative).statistic)
    return sum(found) / len(found)


def top_consistency(helpful: np.ndarray, k: int) -> float:
    """Return the mean Jaccard index of the top k of (T, n_train, n_test) over pairs of seeds."""
    n_draws, _, n_test = helpful.shape
    found = []
    for z in range(n_test):
        tops = [set(np.argsort(helpful[t, :, z])[-k:].tolist()) for t in range(n_draws)]
        for s in range(n_draws):
            for t in range(s + 1, n_draws):
                found.append(len(tops[s] & tops[t]) / len(tops[s] | tops[t]))
    return float(np.mean(found))


# Subsets of the training set


def subset_losses(
    build: Build,
    train_data: Data,
    test_data: Data,
    inside: list[int],
    seed: int,
    n_epochs: int,
    kept_epochs: list[int],
    batch_size: int = 32,
    *,
    taken_out: bool = False,
) -> Tensor:
    """Return the test losses (C, n_test) of a model that is trained on a subset.

    It sees the batches of a training on all. The losses of what is not inside are zero, or that is
    taken out of its batches; either way a batch's sum is divided by the batch's full size.
    """
    torch.manual_seed(seed)
    model = build()
    optimizer = adam(model)
    positions = torch.arange(len(train_data[1]))
    loader = DataLoader(TensorDataset(*train_data, positions), batch_size=batch_size, shuffle=True)
    result = []
    for epoch in range(n_epochs):
        model.train()
        for inputs, labels, which in loader:
            is_in = torch.tensor([i in inside for i in which.tolist()])
            optimizer.zero_grad()
            if taken_out and not is_in.any():
                for parameter in model.parameters():
                    parameter.grad = torch.zeros_like(parameter)
            else:
                if taken_out:
                    losses = losses_of_some(model, inputs, labels, is_in)
                else:
                    losses = F.cross_entropy(model(inputs), labels, reduction="none")
                    losses = torch.where(is_in, losses, 0.0)
                (losses.sum() / len(labels)).backward()
            optimizer.step()
        if epoch in kept_epochs:
            model.eval()
            with torch.no_grad():
                result.append(F.cross_entropy(model(test_data[0]), test_data[1], reduction="none"))
    return torch.stack(result)


Values = dict[frozenset[int], Tensor]  # what a model trained on each subset of 0 ... n − 1 loses


def banzhaf(losses: Values, n: int) -> Tensor:
    """Return what each sample takes off the loss, the mean over all subsets of the others."""
    result = []
    for j in range(n):
        without = [subset for subset in losses if j not in subset]
        result.append(torch.stack([losses[s] - losses[s | {j}] for s in without]).mean(0))
    return torch.stack(result)


def shapley(losses: Values, n: int) -> Tensor:
    """Return the Shapley value of each sample by its formula over all subsets of the others."""
    result = []
    for j in range(n):
        total = 0.0
        for subset in losses:
            if j not in subset:
                size = len(subset)
                weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
                total = total + weight * (losses[subset] - losses[subset | {j}])
        result.append(total)
    return torch.stack(result)


def ridge(masks: Tensor, losses: Tensor, penalty: float) -> tuple[Tensor, float]:
    """Return weights (n,) and intercept of one target (K,), by the normal equations."""
    x, y = masks.double(), losses.double()
    centred = x - x.mean(0)
    left = centred.T @ centred + penalty * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(left, centred.T @ (y - y.mean()))
    return weights, (y.mean() - x.mean(0) @ weights).item()


def ridge_error(masks: Tensor, losses: Tensor, penalty: float) -> float:
    """Return the mean squared error of each subset's loss by a fit to all other subsets."""
    errors = []
    for k in range(len(losses)):
        others = torch.arange(len(losses)) != k
        weights, intercept = ridge(masks[others], losses[others], penalty)
        errors.append((losses[k] - masks[k].double() @ weights - intercept).square())
    return torch.stack(errors).mean().item()


def perceptron_step(model: nn.Module, objective: Tensor, rate: float) -> None:
    """Change a model by one step of gradient descent."""
    slopes = torch.autograd.grad(objective, list(model.parameters()))
    with torch.no_grad():
        for parameter, slope in zip(model.parameters(), slopes, strict=True):
            parameter -= rate * slope


def distance(model: nn.Module, other: nn.Module | None = None) -> Tensor:
    """Return the squared distance of a model's parameters from another's, or from 0."""
    anchors = [0.0] * 100 if other is None else [p.detach() for p in other.parameters()]
    return sum(
        (p - anchor).square().sum() for p, anchor in zip(model.parameters(), anchors, strict=False)
    )


def objective_without(model: nn.Module, data: Data, left_out: int | None, decay: float) -> Tensor:
    """Return the summed loss of all samples but one, over all samples, with weight decay."""
    inputs, labels = data
    total = torch.zeros(())
    for i in range(len(labels)):
        if i != left_out:
            total = total + F.cross_entropy(model(inputs[i : i + 1]), labels[i : i + 1])
    return total / len(labels) + decay / 2 * distance(model)


def descended(
    model: nn.Module, data: Data, left_out: int | None, decay: float, rate: float, steps: int
) -> nn.Module:
    """Return a copy of a model after steps of full-batch gradient descent without a sample."""
    model = copy.deepcopy(model)
    for _ in range(steps):
        perceptron_step(model, objective_without(model, data, left_out, decay), rate)
    return model


def bregman(model: nn.Module, at: nn.Module, data: Data, left_out: int, decay: float) -> Tensor:
    """Return the proximal Bregman objective of leaving out a sample, by its definition."""
    inputs, labels = data
    total = torch.zeros(())
    for i in range(len(labels)):
        f, label = model(inputs[i : i + 1]), labels[i : i + 1]
        f_at = at(inputs[i : i + 1]).detach().requires_grad_()
        loss_at = F.cross_entropy(f_at, label)
        (slope,) = torch.autograd.grad(loss_at, f_at)
        total = total + F.cross_entropy(f, label) - loss_at.detach() - (slope * (f - f_at)).sum()
        if i == left_out:
            total = total - F.cross_entropy(f, label)
    return total / len(labels) + decay / 2 * distance(model, at)


def continued(
    model: nn.Module,
    data: Data,
    removed: int | None,
    *,
    seed: int,
    batch_size: int,
    n_steps: int,
    learning_rate: float,
    weight_decay: float,
) -> nn.Module:
    """Return a copy of a model after further steps of a fresh Adam without one sample, or with all.

    Batches are drawn as if nothing was removed, and their mean divides by their full size.
    """
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    torch.manual_seed(seed)
    loader = DataLoader(range(len(data[1])), batch_size=batch_size, shuffle=True)
    done = 0
    while True:
        for batch in loader:
            if done == n_steps:
                return model.eval()
            total = 0
            for i in batch.tolist():
                if i != removed:
                    total = total + F.cross_entropy(model(data[0][i : i + 1]), data[1][i : i + 1])
            optimizer.zero_grad()
            (total / len(batch)).backward()
            optimizer.step()
            done += 1
