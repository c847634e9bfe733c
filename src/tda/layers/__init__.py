"""Kinds of layers whose per-sample gradients come out of their input and their output's gradient.

A module of this package holds the rules of some kinds; a new kind is a new rule in one of them, or
a new module, and nothing else.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
