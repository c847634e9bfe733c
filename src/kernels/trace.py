"""The forward of a module as torch.fx traces it, and as long as what was traced holds."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn.modules.module import _has_any_global_hook

from src.kernels.layers import LAYERS

PLAIN = (bool, int, float, str, type(None))
NO_STATE = ("_parameters", "_buffers", "traced")


class Traced:
    """A module's forward as it was traced, once for each mode.

    Args:
        parts: The modules whose forwards it is.
        ways: Of each mode their state, the forward, fused, and the names of what is fused in it.
    """

    def __init__(self, parts: tuple[nn.Module, ...], ways: list[tuple]) -> None:
        self.parts = parts
        self.ways = ways

    def now(self) -> tuple[Callable | None, frozenset[str]]:
        """Return what holds for the present state; None: the forward as it is written."""
        if not _has_any_global_hook():
            state = state_of(self.parts)
            for of, forward, convolutions in self.ways:
                if of == state:
                    return forward, convolutions
        return None, frozenset()


def state_of(parts: tuple[nn.Module, ...]) -> list:
    """Return what a trace of a forward holds for.

    It is all that is in the modules whose forwards are traced, except for tensors: their modes,
    settings, hooks and layers.
    """
    state: list = []
    for part in parts:
        for name, value in vars(part).items():
            if name in NO_STATE:
                continue
            if isinstance(value, dict):
                value = tuple(value.values())
            if isinstance(value, list | tuple | set):
                state += name, *map(id, value)
            else:
                state += name, value if type(value) in PLAIN else id(value)
    return state


def traced_with(module: nn.Module) -> tuple[nn.Module, ...]:
    """Return a module and those whose forwards are traced with its own."""
    parts = [module]
    for child in module.children():
        if not _is_leaf(child):
            parts.extend(traced_with(child))
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


def trace(module: nn.Module) -> tuple[nn.Module, fx.Graph] | None:
    """Return a copy of a module and the graph of its forward in its present mode.

    None: torch.fx cannot follow it, or it does what a graph does not repeat: it changes the module,
    or draws numbers, while it is traced.
    """
    generators = _generators()
    try:
        copied = copy.deepcopy(module)
        cls = type(module)
        of_one_input = lambda self, inputs: self.forward(inputs)  # noqa: E731
        copied.__class__ = type(
            cls.__name__, (cls,), {"__module__": cls.__module__, "of_one_input": of_one_input}
        )
        parts = traced_with(copied)
        before = state_of(parts)
        graph = _Tracer().trace(copied)
        repeatable = state_of(parts) == before and _generators() == generators
    except Exception:  # whatever a forward may raise that is not given tensors
        return None
    finally:
        of_torch, of_python, of_numpy = generators
        torch.set_rng_state(torch.tensor(of_torch, dtype=torch.uint8))
        random.setstate(of_python)
        np.random.set_state(of_numpy)
    tensors = {name for name, _ in (*copied.named_parameters(), *copied.named_buffers())}
    attributes = {node.target for node in graph.nodes if node.op == "get_attr"}
    return (copied, graph) if repeatable and attributes <= tensors else None


def _generators() -> tuple[list, tuple, tuple]:
    """Return the states of torch's, Python's and numpy's global generators."""
    name, keys, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), (name, keys.tolist(), *rest)
