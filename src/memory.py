"""How much is computed at once: chunk sizes that fit the free memory and, on a CPU, the cache."""

from __future__ import annotations

import torch

from src.data.samples import Samples
from src.members import Params, PerSampleLoss, n_parameters

# Half of the free memory: estimates leave out temporaries and what an allocator keeps aside.
SHARE_OF_FREE_MEMORY = 0.5
# On a CPU, members trained together should keep parameters, gradients and moments in cache, and
# a batch its activations; benchmarks/README.md has the measurements. A GPU wants what fits.
CPU_CACHE_BYTES = 16 * 2**20
CPU_BATCH = 60
CPU_HESSIAN_BATCH = 96  # vectors times samples


def free_memory(device: torch.device) -> int:
    """Return the free memory of a device in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


def activation_bytes(loss: PerSampleLoss, params: Params, samples: Samples) -> int:
    """Return the bytes that a backward pass keeps for one sample of one member, measured."""
    params = {name: p.detach().requires_grad_() for name, p in params.items()}
    not_activations = {p.data_ptr() for p in (*loss.model.parameters(), *params.values())}
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in not_activations:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with (
        # A measurement is no part of the draw: the generators' states must not move.
        torch.random.fork_rng([samples.device] if samples.device.type == "cuda" else []),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
    ):
        loss(params, *samples[:1])
    return sum(kept.values())


def members_at_once(loss: PerSampleLoss, params: Params, samples: Samples, batch_size: int) -> int:
    """Return how many members to train at once, each on batches of `batch_size` samples."""
    # Parameters, gradients and Adam's two moments.
    state = 4 * _bytes(params)
    activations = min(batch_size, len(samples)) * activation_bytes(loss, params, samples)
    at_once = _fitting(samples, state + activations)
    if samples.device.type == "cpu":
        at_once = min(at_once, CPU_CACHE_BYTES // state)
    return max(1, at_once)


def vectors_at_once(params: Params, samples: Samples) -> int:
    """Return for how many samples to hold gradients, or vectors to solve for, at once."""
    # A vector, its solution, and what a solver keeps beside them.
    return _fitting(samples, 8 * _bytes(params))


def gradient_batch(loss: PerSampleLoss, params: Params, samples: Samples) -> int:
    """Return how many samples' gradients to compute in one backward pass."""
    if samples.device.type == "cpu":
        return CPU_BATCH
    return _fitting(samples, 2 * activation_bytes(loss, params, samples) + _bytes(params))


def evaluation_batch(loss: PerSampleLoss, params: Params, samples: Samples, n_members: int) -> int:
    """Return how many samples to evaluate at once for each of `n_members` members."""
    if samples.device.type == "cpu":
        return CPU_BATCH
    return _fitting(samples, n_members * activation_bytes(loss, params, samples))


def hessian_vectors(
    loss: PerSampleLoss, params: Params, samples: Samples, batch_size: int
) -> int:
    """Return how many vectors to multiply with the Hessian of a batch at once."""
    if samples.device.type == "cpu":
        return max(1, CPU_HESSIAN_BATCH // batch_size)
    # A product keeps the activations, their tangents and the gradients of both.
    per_vector = 4 * batch_size * activation_bytes(loss, params, samples) + 4 * _bytes(params)
    return _fitting(samples, per_vector)


def _bytes(params: Params) -> int:
    return n_parameters(params) * next(iter(params.values())).element_size()


def _fitting(samples: Samples, bytes_each: int) -> int:
    """Return how many things of the given size fit in the free memory, at least one."""
    return max(1, int(SHARE_OF_FREE_MEMORY * free_memory(samples.device) / bytes_each))
