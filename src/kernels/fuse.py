"""A pass over a plain network, after which it computes the same from the same parameters, faster.

Where the network convolves, takes GELU and max-pools over windows of 2x2, all three become one
operation (`src.kernels.blocks`). Such places are found in the graph that torch.fx traces of the
network's forward. Layers that by themselves are faster as another operation change their class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx, nn
from torch.nn.modules.conv import _ConvNd

from src.kernels import blocks, pattern
from src.kernels.layers import LAYERS
from src.kernels.library import are_there
from src.kernels.trace import Traced, state_of, trace, traced_with


def fuse(model: nn.Module) -> nn.Module:
    """Make a network faster, in place, and return it.

    Parameters, buffers, the names of all layers and the network's mode stay. What cannot be traced
    is computed as before.
    """
    for layer in model.modules():
        for faster in LAYERS:
            if faster.takes(layer):
                layer.__class__ = faster
    _fuse_blocks(model)
    return model


def _fuse_blocks(module: nn.Module) -> None:
    """Fuse what a module's forward does, or else what those of the modules in it do."""
    if not any(blocks.takes(layer) for layer in module.modules()):
        return
    traced, parts = [], traced_with(module)
    modes = [(part, part.training) for part in module.modules()]
    for training in (True, False):
        module.train(training)
        fused = _fused_forward(module)
        if fused is not None:
            traced.append((state_of(parts), *fused))
    for part, was_training in modes:
        part.training = was_training
    if traced:
        cls = type(module)
        module.__class__ = type(cls.__name__, (_Fused, cls), {"__module__": cls.__module__})
        module.traced = Traced(parts, traced)
        return
    for child in module.children():
        _fuse_blocks(child)


def by_kernels(model: nn.Module) -> bool:
    """Say whether kernels for this CPU compute all convolutions that members have of their own.

    A batch over members would turn any other into a grouped convolution, which is slow.
    """
    own = [layer for layer in model.modules() if is_own_convolution(layer)]
    fused = {
        layer
        for module in model.modules()
        if isinstance(module, _Fused)
        for layer in map(module.get_submodule, module.traced.now()[1])
    }
    return fused.issuperset(own) and all(are_there(layer.weight.dtype) for layer in own)


def is_own_convolution(layer: nn.Module) -> bool:
    """Say whether a layer is a convolution that each member has a weight of its own for."""
    return isinstance(layer, _ConvNd) and layer.weight.requires_grad


class _Fused(nn.Module):
    """What a module with fused blocks becomes; its own class comes next in the order of bases."""

    traced: Traced

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the module's own forward does."""
        if len(args) == 1 and not kwargs:
            fused, _ = self.traced.now()
            if fused is not None:
                return fused(self, *args)
        return super().forward(*args, **kwargs)


def _fused_forward(module: nn.Module) -> tuple[Callable, frozenset[str]] | None:
    """Return a module's forward in its present mode, fused, and the names of what is fused in it.

    None: it has to stay as it is, or there is nothing to fuse.
    """
    traced = trace(module)
    if traced is None:
        return None
    copied, graph = traced
    places = [*pattern.find(graph, dict(copied.named_modules()))]
    if not places:
        return None
    pattern.replace(graph, places)
    forward = type(fx.GraphModule(copied, graph)).forward
    return forward, frozenset(place.convolution.target for place in places)
