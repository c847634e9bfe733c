"""How much is computed at once: chunk sizes that fit the free memory and, on a CPU, the cache.

Sizes are estimates made beforehand; where one was too large after all, `in_chunks` goes on with
half of it.
"""

from __future__ import annotations

import ctypes
import gc
import platform
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from src.data.samples import Samples
from src.ensemble.generators import without_drawing
from src.ensemble.members import PerSampleLoss, State
from src.messages import say

# Half of the free memory: estimates leave out temporaries and what an allocator keeps aside.
SHARE_OF_FREE_MEMORY = 0.5
# On a CPU, more at once cost less for each until they leave the caches: the sizes are those at
# which cnn2 was fastest and, of other networks' members, the tiny ViT. A GPU wants what fits.
CPU_STATE = 48 * 2**20  # bytes of parameters, gradients and moments of members trained together
CPU_BATCH = 100
CPU_EVALUATION = 1000  # members times samples; of convolutions few activations are kept
CPU_VECTORISED = 256  # members times samples of other networks
CPU_ACTIVATIONS = 8 * 2**20  # bytes that those of a small network may keep in the place of that
CPU_HESSIAN_BATCH = 240  # vectors times samples
CPU_HESSIAN = 96 * 2**20  # bytes that the vectors of a small network may take in the place of that
SAID_FROM = 2**30  # bytes; a smaller estimate is not worth a line
ADVICE = (
    "free memory on the device, choose another by --device, or fine-tune a smaller backbone "
    "(--backbone)"
)

Items = TypeVar("Items", torch.Tensor, Sequence)
Result = TypeVar("Result")


def in_chunks(
    items: Items, chunk_size: int, compute: Callable[[Items], Result]
) -> Iterator[Result]:
    """Yield `compute(chunk)` for consecutive chunks; one that does not fit in memory is halved.

    Args:
        items: What is cut into chunks, along its first dimension.
        chunk_size: Items in a chunk; halved, for all that follow, when memory runs out.
        compute: Computes a chunk; called again with half of it if memory ran out.

    Raises:
        MemoryError, RuntimeError: Memory ran out on a single item (see `is_out_of_memory`).
    """
    first = 0
    while first < len(items):
        chunk = items[first : first + chunk_size]
        try:
            result = compute(chunk)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(chunk) == 1:
                raise  # to a caller who has chunks of something else to halve, or to src.cli.run
        else:
            yield result
            first += len(chunk)
            continue
        # Outside of the handler, whose traceback would keep alive what has to be freed.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if torch.backends.mps.is_available():
            torch.mps.empty_cache()
        chunk_size = len(chunk) // 2
        say(f"out of memory with {len(chunk)} at once: going on with {chunk_size}")


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that an allocation failed, on a CPU or a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch's allocators of the CPU and of Apple's GPUs have no error class of their own.
    said = str(error)
    return isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator" in said or "MPS backend out of memory" in said
    )


def free_memory(device: torch.device) -> int:
    """Return the free memory of a device in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    available = psutil.virtual_memory().available
    if device.type == "mps":  # a part of the machine's own memory
        recommended = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return max(0, min(available, recommended))
    return available


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next allocation; with glibc only.

    By default glibc gives the memory of large activations back to the system when they are freed,
    and every batch pays for its pages again: evaluation takes up to three times as long.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
        libc.mallopt(m_trim_threshold, 2**30)
        libc.mallopt(m_mmap_threshold, 2**25)  # the largest that glibc takes


def activation_bytes(loss: PerSampleLoss, state: State, samples: Samples) -> int:
    """Return the bytes that a backward pass keeps for one sample of one member, measured once.

    That is 1 at least: a network that only adds keeps nothing, and is divided by.
    """
    dtype = next(iter(loss.parameters(state).values())).dtype
    key = ("activations", loss.model.training, dtype, samples.images.shape[1:])
    if key not in loss.found:
        loss.found[key] = _measure_activations(loss, state, samples)
    return loss.found[key]


def _measure_activations(loss: PerSampleLoss, state: State, samples: Samples) -> int:
    # Of running statistics, which a forward pass in training mode changes, it gets copies.
    buffers = dict(loss.model.named_buffers()) | loss.fixed | state
    buffers = {name: buffers[name].clone() for name, _ in loss.model.named_buffers()}
    params = {n: p.detach().requires_grad_() for n, p in loss.parameters(state).items()}
    values = {**loss.fixed, **state, **buffers, **params}
    not_activations = {t.data_ptr() for t in (*loss.model.parameters(), *values.values())}
    # Of two samples, since statistics of a batch may need more than one.
    two = torch.tensor([0, len(samples) - 1], device=samples.device)
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in not_activations:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with (
        # A measurement is no part of the draw: the generators' states must not move.
        without_drawing(samples.device),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
    ):
        loss(values, *samples[two])
    return max(1, sum(kept.values()) // 2)


def members_at_once(loss: PerSampleLoss, state: State, samples: Samples, batch_size: int) -> int:
    """Return how many members to train at once, each on batches of `batch_size` samples."""
    # Parameters, gradients and Adam's two moments.
    trained = 4 * _bytes(loss, state)
    activations = min(batch_size, len(samples)) * activation_bytes(loss, state, samples)
    at_once = _fitting(samples, trained + activations)
    if samples.device.type == "cpu":
        at_once = min(at_once, CPU_STATE // trained)
        if loss.computes_together(samples.device) and not loss.convolves:
            together = _vectorised(loss, state, samples)
            at_once = min(at_once, together // min(batch_size, len(samples)))
    at_once = max(1, at_once)
    _say_estimate(at_once, trained + activations, samples.device)
    return at_once


def steps_at_once(loss: PerSampleLoss, state: State, samples: Samples) -> int:
    """Return of how many members to hold the parameters after a step on one sample each."""
    bytes_each = 2 * _bytes(loss, state)  # with what the step is computed from
    at_once = min(_fitting(samples, bytes_each), gradient_batch(loss, state, samples))
    if samples.device.type == "cpu":
        at_once = min(at_once, max(1, CPU_STATE // bytes_each))
    return at_once


def say_training_estimate(
    loss: PerSampleLoss, state: State, samples: Samples, batch_size: int
) -> None:
    """Say how much memory the training of one model takes, where it is much."""
    activations = min(batch_size, len(samples)) * activation_bytes(loss, state, samples)
    _say_estimate(1, 4 * _bytes(loss, state) + activations, samples.device)


def _say_estimate(n_members: int, bytes_each: int, device: torch.device) -> None:
    free = free_memory(device)
    needed = int(n_members * bytes_each / SHARE_OF_FREE_MEMORY)
    if needed > free:
        say(
            f"memory: about {_gib(needed)} for one member and its batch, {_gib(free)} are free; "
            f"it may not fit: {ADVICE}"
        )
    elif needed > SAID_FROM:
        say(
            f"memory: about {_gib(needed)} for {n_members} members at once and their batches, "
            f"{_gib(free)} are free"
        )


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB"


def vectors_at_once(loss: PerSampleLoss, state: State, samples: Samples) -> int:
    """Return for how many samples to hold gradients, or vectors to solve for, at once."""
    # A vector, its solution, and what a solver keeps beside them.
    return _fitting(samples, 8 * _bytes(loss, state))


def gradient_batch(loss: PerSampleLoss, state: State, samples: Samples) -> int:
    """Return how many samples' gradients to compute in one backward pass."""
    fitting = _fitting(samples, 2 * activation_bytes(loss, state, samples) + _bytes(loss, state))
    return min(CPU_BATCH, fitting) if samples.device.type == "cpu" else fitting


def evaluation_batch(
    loss: PerSampleLoss, state: State, samples: Samples, n_members: int
) -> tuple[int, int]:
    """Return how many of `n_members` members to evaluate at once, and on how many samples."""
    together = n_members if loss.computes_together(samples.device) else 1
    on_cpu = samples.device.type == "cpu"
    if on_cpu:
        at_once = CPU_EVALUATION if loss.convolves else _vectorised(loss, state, samples)
        # Each of the members reads parameters of its own, so that many samples suit it best.
        together = max(1, min(together, at_once // len(samples)))
    fitting = _fitting(samples, together * activation_bytes(loss, state, samples))
    if on_cpu:
        fitting = max(1, min(at_once // together, fitting))
    return together, fitting


def hessian_vectors(loss: PerSampleLoss, state: State, samples: Samples, batch_size: int) -> int:
    """Return how many vectors to multiply with the Hessian of a batch at once."""
    # A product keeps the activations, their tangents and the gradients of both.
    per_vector = 4 * batch_size * activation_bytes(loss, state, samples) + 4 * _bytes(loss, state)
    fitting = _fitting(samples, per_vector)
    if samples.device.type == "cpu":
        fastest = max(CPU_HESSIAN_BATCH // batch_size, CPU_HESSIAN // per_vector)
        return max(1, min(fastest, fitting))
    return fitting


def _vectorised(loss: PerSampleLoss, state: State, samples: Samples) -> int:
    """Return how many members times samples of a network without convolutions suit a CPU."""
    return max(CPU_VECTORISED, CPU_ACTIVATIONS // activation_bytes(loss, state, samples))


def _bytes(loss: PerSampleLoss, state: State) -> int:
    """Return the bytes of the trainable parameters."""
    return sum(p.numel() * p.element_size() for p in loss.parameters(state).values())


def _fitting(samples: Samples, bytes_each: int) -> int:
    """Return how many things of the given size fit in the free memory, at least one."""
    return max(1, int(SHARE_OF_FREE_MEMORY * free_memory(samples.device) / bytes_each))
