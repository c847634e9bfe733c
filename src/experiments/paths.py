"""Every path below the root folder."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from src.experiments.definitions import loaded_files
from src.experiments.experiment import Experiment
from src.experiments.models import TINY_BACKBONE

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Paths:
    """Every path below the root folder, and what to run on it."""

    root: Path

    def call(self, script: str, *arguments: object) -> tuple[str, ...]:
        """Return a script and its arguments.

        Among them are files of definitions that are loaded, and the root where it is not the
        default.
        """
        root = self.root.resolve()
        options = [] if root == REPOSITORY else ["--root", root]
        for file in loaded_files():
            options += ["--define", file]
        return (script, *map(str, (*arguments, *options)))

    def command(self, script: str, *arguments: object) -> str:
        """Return the command line that runs a script on this root, for a shell."""
        return shlex.join(("python", *self.call(script, *arguments)))

    def indices(self, task: str, split: str) -> Path:
        """Index file of a split ('train_10pc', 'test'): one index into the full split a line."""
        return self.root / "data" / "subset_indices" / task / f"{split}.txt"

    def tensors(self, task: str, split: str) -> Path:
        """Tensors of a split: images, labels, indices."""
        return self.root / "data" / task / f"{split}.pt"

    def checkpoint(self, experiment: Experiment, seed: int, epoch: int) -> Path:
        """Checkpoint of one epoch of one seed."""
        return self.root / "models" / experiment.name / str(seed) / f"ckpt_epoch_{epoch}.pt"

    def seeds_with_checkpoints(self, experiment: Experiment) -> set[int]:
        """Seeds that have a folder of checkpoints."""
        folder = self.root / "models" / experiment.name
        return {int(path.name) for path in folder.glob("*") if path.name.isdecimal()}

    def tiny_backbone(self, task: str) -> Path:
        """Folder of the tiny backbone that is pre-trained on images that a task does not use."""
        return self.root / "models" / "backbones" / f"{TINY_BACKBONE}_{task}"

    def scores(self, experiment: Experiment, method: str, seed: int) -> Path:
        """Attribution scores of one method on one seed's checkpoints."""
        return self.root / "tda_scores" / experiment.name / method / f"{seed}.pt"

    def partial_scores(self, experiment: Experiment, method: str, seed: int) -> Path:
        """Finished pieces of a score file that is being computed."""
        return self.scores(experiment, method, seed).with_suffix(".partial.pt")

    def training_lock(self, experiment: Experiment, seed: int) -> Path:
        """Lock of the training of a seed."""
        return self.root / "models" / experiment.name / f".{seed}.lock"

    def scores_lock(self, experiment: Experiment, method: str, seed: int) -> Path:
        """Lock of one method's scores of a seed."""
        return self.scores(experiment, method, seed).with_name(f".{seed}.lock")

    def backbone_lock(self, task: str) -> Path:
        """Lock of the pre-training of a task's tiny backbone."""
        folder = self.tiny_backbone(task)
        return folder.with_name(f".{folder.name}.lock")

    def log(self, experiment: Experiment, job: str, seed: int) -> Path:
        """Log of a job ("training" or a method) that `run_parallel.py` started."""
        return self.root / "logs" / experiment.name / job / f"{seed}.log"

    def results(self, experiment: Experiment) -> Path:
        """Folder of an experiment's tables and figures."""
        return self.root / "results" / experiment.name

    @property
    def comparison(self) -> Path:
        """Folder of all comparisons of experiments, each in a folder of its own in it."""
        return self.root / "results" / "comparison"

    def paper(self, scale: str) -> Path:
        """Folder of the paper's tables and figures at a scale."""
        return self.root / "results" / ("paper" if scale == "paper" else f"paper_{scale}")

    def fragility(self, study: str, scale: str) -> Path:
        """Folder of what a study of influence functions measured at a scale, and of its figures."""
        return self.root / "results" / "fragility" / study / scale

    def fragility_log(self, study: str, scale: str, configuration: str, seed_ids: str) -> Path:
        """Log of a job of such a study."""
        return self.root / "logs" / "fragility" / study / scale / configuration / f"{seed_ids}.log"
