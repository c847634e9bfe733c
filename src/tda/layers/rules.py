"""The registry: which rule gives a layer's per-sample gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

from src.kernels.layers import LAYERS
from src.tda.layers.parts import Part

# Of a layer, the names of its trainable parameters, its input (N, ...) and the gradient (N, ...) of
# each sample's loss with respect to its output, the gradients with respect to these parameters;
# None if its input is none that the rule is for.
Rule = Callable[[nn.Module, frozenset[str], Tensor, Tensor], Part | None]
R = TypeVar("R", bound=Rule)

# Layers that a pass made faster compute by a `forward` of their own what their base does.
SAME_AS = {faster: faster.__base__ for faster in LAYERS}

_rules: dict[type[nn.Module], tuple[Rule, Callable[[nn.Module], bool]]] = {}


def rule(
    *kinds: type[nn.Module], covers: Callable[[nn.Module], bool] = lambda _: True
) -> Callable[[R], R]:
    """Register a function as the rule of some types of layers.

    Args:
        kinds: The types.
        covers: Says whether a layer's options are ones that the rule is for.
    """

    def register(function: R) -> R:
        _rules.update(dict.fromkeys(kinds, (function, covers)))
        return function

    return register


def rule_of(layer: nn.Module) -> Rule | None:
    """Return the rule of a layer, None if there is none.

    The type counts, or the one it derives from if it computes the same: by not overriding how (the
    classes of parametrised layers do not), or by being listed as such.
    """
    for kind in type(layer).__mro__:
        kind = SAME_AS.get(kind, kind)
        if kind in _rules:
            function, covers = _rules[kind]
            return function if _computes_as(type(layer), kind) and covers(layer) else None
    return None


def _computes_as(derived: type[nn.Module], kind: type[nn.Module]) -> bool:
    derived = SAME_AS.get(derived, derived)
    return all(
        getattr(derived, name, None) is getattr(kind, name, None)
        for name in ("__call__", "forward", "_conv_forward")
    )
