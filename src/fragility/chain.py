"""The dense Hessian of a network that is a chain of modules.

What a layer's parameters change lies behind that layer. So products of the Hessian with unit
vectors of them pass through the modules from there on alone, and what they give is the part of the
Hessian's rows that belongs to the parameters from there on; the rest is by symmetry. The layers
behind the first few are small, and most parameters are theirs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from src.data.samples import Samples
from src.ensemble.members import Params, PerSampleLoss, n_parameters
from src.fragility.objective import BATCH
from src.tda.hessian import load_forward_mode_rules, unflatten

VECTORS = 32  # at once


def chain_hessian(loss: PerSampleLoss, params: Params, samples: Samples) -> Tensor:
    """Return the Hessian (P, P) of the mean loss of samples.

    Args:
        loss: The per-sample loss of an `nn.Sequential` in eval mode.
        params: All of its parameters, in their order.
        samples: The samples.
    """
    load_forward_mode_rules()
    model, criterion = loss.model, loss.accurate.criterion
    width = n_parameters(params)
    matrix = next(iter(params.values())).new_zeros(width, width)
    for inputs, labels in samples.batches(BATCH):
        below, first = inputs, 0  # what the module is given, and the position of its parameters
        for k, module in enumerate(model):
            own = {f"{k}.{name}": params[f"{k}.{name}"] for name, _ in module.named_parameters()}
            if own:
                rows = _rows(model[k:], criterion, own, _after(params, own), below, labels)
                matrix[first : first + len(rows), first:] += rows
                first += len(rows)
            with torch.no_grad():
                below = functional_call(model[k : k + 1], own, below)
    upper = matrix.triu() / len(samples)
    return upper + upper.triu(1).T


def _after(params: Params, own: Params) -> Params:
    """Return the parameters from those of a module on."""
    names = list(params)
    return {name: params[name] for name in names[names.index(next(iter(own))) :]}


def _rows(
    part: nn.Sequential,
    criterion: Callable[[Tensor, Tensor], Tensor],
    own: Params,
    behind: Params,
    inputs: Tensor,
    labels: Tensor,
) -> Tensor:
    """Return the rows of a part's first module, (P_own, P_behind), of the sum of losses."""

    def gradient(own: Params) -> Tensor:
        found = grad(lambda params: criterion(functional_call(part, params, inputs), labels).sum())(
            {**behind, **own}
        )
        return torch.cat([g.reshape(-1) for g in found.values()])

    def product(vector: Params) -> Tensor:
        return jvp(gradient, (own,), (vector,))[1]

    like = next(iter(own.values()))
    identity = torch.eye(n_parameters(own), dtype=like.dtype, device=like.device)
    return torch.cat([vmap(product)(unflatten(rows, own)) for rows in identity.split(VECTORS)])
