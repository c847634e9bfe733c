"""Where a graph has convolution, GELU and max-pooling, and one operation in their place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import fx, nn

from src.kernels import blocks


class Place(NamedTuple):
    """The nodes of a block."""

    convolution: fx.Node
    gelu: fx.Node
    pool: fx.Node


def find(graph: fx.Graph, modules: dict[str, nn.Module]) -> Iterator[Place]:
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
            yield Place(convolution, gelu, pool)


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


def _chains(places: list[Place]) -> list[list[Place]]:
    """Return blocks in groups, in each of which one is the next one's input and nothing else's."""
    chains: list[list[Place]] = []
    for place in places:
        for chain in chains:
            if chain[-1].pool is _input(place.convolution) and len(chain[-1].pool.users) == 1:
                chain.append(place)
                break
        else:
            chains.append([place])
    return chains


def replace(graph: fx.Graph, places: list[Place]) -> None:
    """Put one operation in the place of each chain of blocks."""
    for chain in _chains(places):
        _replace_chain(graph, chain)


def _replace_chain(graph: fx.Graph, chain: list[Place]) -> None:

    def layer(node: fx.Node) -> fx.Node | None:
        return graph.get_attr(node.target) if node.op == "call_module" else None

    with graph.inserting_before(chain[0].convolution):
        layers = [tuple(map(layer, place)) for place in chain]
        result = graph.call_function(blocks.run, (_input(chain[0].convolution), *layers))
    chain[-1].pool.replace_all_uses_with(result)
    for node in reversed([node for place in chain for node in place]):
        graph.erase_node(node)
