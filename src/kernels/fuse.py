"""A pass over a plain network, after which it computes the same from the same parameters, faster.

Where the network convolves, takes GELU and max-pools over windows of 2x2, all three become one
operation (`src.kernels.blocks`). Such places are found in the graph that torch.fx traces of the
network's forward. Layers that by themselves are faster as another operation change their class.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.module import _has_any_global_hook

from src.kernels import blocks, patches
from src.kernels.library import are_there
from src.kernels.linear import FrozenLinear, Linear

LAYERS = (FrozenLinear, Linear, patches.Conv2d)
PLAIN = frozenset((bool, int, float, str, type(None)))
TENSORS = ("_parameters", "_buffers", "traced")


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
    traced, parts = [], _traced_with(module)
    modes = [(part, part.training) for part in module.modules()]
    for training in (True, False):
        module.train(training)
        fused = _trace(module)
        if fused is not None:
            traced.append((_state(parts), *fused))
    for part, was_training in modes:
        part.training = was_training
    if traced:
        cls = type(module)
        module.__class__ = type(cls.__name__, (_Fused, cls), {"__module__": cls.__module__})
        module.traced = _Traced(parts, traced)
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


class _Traced:
    """A module's forward as it was traced, once for each mode.

    Args:
        parts: The modules whose forwards it is.
        ways: Of each mode their state, the forward, fused, and the names of what is fused in it.
    """

    def __init__(self, parts: tuple[nn.Module, ...], ways: list[tuple]) -> None:
        self.parts = parts
        self.ways = ways

    def now(self) -> tuple[Callable[[nn.Module, Tensor], Any] | None, frozenset[str]]:
        """Return what holds for the present state; None: the forward as it is written."""
        if not _has_any_global_hook():
            state = _state(self.parts)
            for of, forward, convolutions in self.ways:
                if of == state:
                    return forward, convolutions
        return None, frozenset()


class _Fused(nn.Module):
    """What a module with fused blocks becomes; its own class comes next in the order of bases."""

    traced: _Traced

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the module's own forward does."""
        if len(args) == 1 and not kwargs:
            fused, _ = self.traced.now()
            if fused is not None:
                return fused(self, *args)
        return super().forward(*args, **kwargs)


def _state(parts: tuple[nn.Module, ...]) -> list:
    """Return what a trace of a forward holds for.

    It is all that is in the modules whose forwards are traced, except for tensors: their modes,
    settings, hooks and layers.
    """
    state: list = []
    for part in parts:
        for name, value in vars(part).items():
            if name in TENSORS:
                continue
            state.append(name)
            kind = type(value)
            if kind in PLAIN:
                state.append(value)
            elif issubclass(kind, dict):
                state.extend(map(id, value.values()))
            else:
                state.append(id(value))
                if issubclass(kind, list | tuple | set):
                    state.extend(map(id, value))
    return state


def _traced_with(module: nn.Module) -> tuple[nn.Module, ...]:
    """Return a module and those whose forwards are traced with its own."""
    parts = [module]
    for child in module.children():
        if not _is_leaf(child):
            parts.extend(_traced_with(child))
    return tuple(parts)


class _Tracer(fx.Tracer):
    """Traces the forward of a module as called with one input."""

    proxy_buffer_attributes = True

    def __init__(self) -> None:
        super().__init__()
        self.traced_func_name = "of_one_input"
        self._modes = _modes()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Say whether a module's forward is called as it is."""
        return _is_leaf(m)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Return a new node, unless it would be in a mode that a graph cannot hold."""
        if _modes() != self._modes:
            raise fx.proxy.TraceError("part of the forward is in another mode of torch's")
        return super().create_node(*args, **kwargs)


def _is_leaf(module: nn.Module) -> bool:
    """Say whether a module stays one operation of a graph: torch's own, as fx has it."""
    of_torch = module.__module__.startswith(("torch.nn", "torch.ao.nn"))
    return type(module) in LAYERS or (of_torch and not isinstance(module, nn.Sequential))


def _modes() -> tuple[bool, ...]:
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        *(torch.is_autocast_enabled(device) for device in ("cpu", "cuda")),
    )


def _trace(module: nn.Module) -> tuple[Callable, frozenset[str]] | None:
    """Return a module's forward in its present mode, fused; None: it has to stay as it is.

    So it has where torch.fx cannot follow it, where it does what a graph does not repeat (changes
    the module, draws numbers while it is traced), or where there is nothing to fuse.
    """
    generators = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        copied = copy.deepcopy(module)
        cls = type(module)
        of_one_input = lambda self, inputs: self.forward(inputs)  # noqa: E731
        copied.__class__ = type(
            cls.__name__, (cls,), {"__module__": cls.__module__, "of_one_input": of_one_input}
        )
        parts = _traced_with(copied)
        before = _state(parts)
        graph = _Tracer().trace(copied)
        repeatable = _state(parts) == before and _equal(generators)
    except Exception:  # whatever a forward may raise that is not given tensors
        return None
    finally:
        torch.set_rng_state(generators[0])
        random.setstate(generators[1])
        np.random.set_state(generators[2])
    tensors = {name for name, _ in (*copied.named_parameters(), *copied.named_buffers())}
    attributes = {node.target for node in graph.nodes if node.op == "get_attr"}
    found = [*_find(graph, dict(copied.named_modules()))]
    if not repeatable or not attributes <= tensors or not found:
        return None
    for chain in _chains(found):
        _replace(graph, chain)
    forward = type(fx.GraphModule(copied, graph)).forward
    return forward, frozenset(place.convolution.target for place in found)


def _equal(generators: tuple[Tensor, tuple, tuple]) -> bool:
    of_torch, of_python, of_numpy = generators
    name, keys, *rest = np.random.get_state()
    return (
        torch.equal(of_torch, torch.get_rng_state())
        and of_python == random.getstate()
        and np.array_equal(of_numpy[1], keys)
        and (of_numpy[0], *of_numpy[2:]) == (name, *rest)
    )


class _Place(NamedTuple):
    """The nodes of a block."""

    convolution: fx.Node
    gelu: fx.Node
    pool: fx.Node


def _find(graph: fx.Graph, modules: dict[str, nn.Module]) -> Iterator[_Place]:
    """Yield where a graph has blocks whose maps are used nowhere else."""

    def layer(node: fx.Node) -> nn.Module | None:
        return modules[node.target] if node.op == "call_module" else None

    for pool in graph.nodes:
        if not _is_pool(pool, layer(pool)):
            continue
        gelu = _input(pool)
        if not _is_gelu(gelu, layer(gelu)) or len(gelu.users) > 1:
            continue
        convolution = _input(gelu)
        if (
            blocks.takes(layer(convolution))
            and len(convolution.users) == 1
            and len(convolution.args) == 1
        ):
            yield _Place(convolution, gelu, pool)


def _input(node: fx.Node) -> fx.Node:
    """Return the node that a function or a layer of one tensor is given."""
    return node.all_input_nodes[0]


def _is_gelu(node: fx.Node, layer: nn.Module | None) -> bool:
    """Say whether a node is exact GELU."""
    if layer is not None:
        return type(layer) is nn.GELU and layer.approximate == "none" and _as_its_class(layer)
    return node.target is F.gelu and node.kwargs.get("approximate", "none") == "none"


def _is_pool(node: fx.Node, layer: nn.Module | None) -> bool:
    """Say whether a node is max-pooling over windows of 2x2 that do not overlap."""
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    if layer is not None:
        if type(layer) is not nn.MaxPool2d or not _as_its_class(layer):
            return False
        settings = {name: getattr(layer, name) for name in names}
    elif node.target in (F.max_pool2d, torch.max_pool2d):
        settings = {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}
    else:
        return False
    return (
        _pair(settings["kernel_size"]) == (2, 2)
        and _pair(settings.get("stride") or 2) == (2, 2)
        and _pair(settings.get("padding", 0)) == (0, 0)
        and _pair(settings.get("dilation", 1)) == (1, 1)
        and not settings.get("ceil_mode")
        and not settings.get("return_indices")
    )


def _as_its_class(layer: nn.Module) -> bool:
    return "forward" not in vars(layer)


def _pair(value: Any) -> tuple:
    return tuple(value) if isinstance(value, list | tuple) else (value, value)


def _chains(places: list[_Place]) -> list[list[_Place]]:
    """Return blocks in groups, in each of which one is the next one's input and nothing else's."""
    chains: list[list[_Place]] = []
    for place in places:
        for chain in chains:
            if chain[-1].pool is _input(place.convolution) and len(chain[-1].pool.users) == 1:
                chain.append(place)
                break
        else:
            chains.append([place])
    return chains


def _replace(graph: fx.Graph, chain: list[_Place]) -> None:
    """Put one operation in the place of all nodes of some blocks."""

    def layer(node: fx.Node) -> fx.Node | None:
        return graph.get_attr(node.target) if node.op == "call_module" else None

    with graph.inserting_before(chain[0].convolution):
        layers = [tuple(map(layer, place)) for place in chain]
        result = graph.call_function(blocks.run, (_input(chain[0].convolution), *layers))
    chain[-1].pool.replace_all_uses_with(result)
    for node in reversed([node for place in chain for node in place]):
        graph.erase_node(node)
