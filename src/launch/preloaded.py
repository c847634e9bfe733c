"""What every job needs of the libraries, imported once by the process that jobs are forked from.

Importing them takes seconds, as long as a small job. Nothing is computed here and no GPU is asked
for: threads of a computation and a GPU's state do not survive a fork.
"""

import os

import torch._dynamo  # noqa: F401, by the first optimiser or vmap, with which every job begins

import src.ensemble.checkpoints
import src.ensemble.evaluation
import src.ensemble.training  # noqa: F401
from src.tda.hessian import load_forward_mode_rules

load_forward_mode_rules()

# Signals to the group of the process that started this one (of a terminal that is closed, of Slurm
# before its time limit) are that one's to act on.
os.setpgrp()
