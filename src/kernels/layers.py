"""The classes that layers change to which by themselves are faster as another operation."""

from src.kernels.linear import FrozenLinear, Linear
from src.kernels.patches import Conv2d

LAYERS = (FrozenLinear, Linear, Conv2d)
