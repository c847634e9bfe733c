"""The file of one seed's models on a kind of subsets: found computed, or computed and saved."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from src.ensemble.checkpoint_files import require_trained_here
from src.ensemble.checkpoints import Checkpoints
from src.errors import DivergedError
from src.storage.files import check_settings, save
from src.subsets.files import load_subsets, subsets_command, subsets_identity
from src.subsets.masks import Subsets
from src.subsets.training import train_subsets
from src.tda.estimator import Draws
from src.tda.pieces import PartialFile
from src.tda.seed_files import SeedFiles


class SubsetTraining(SeedFiles):
    """Models of one seed on a kind of subsets: found trained, or trained.

    Args:
        trained: The experiment's checkpoints.
        seed: The seed, for names.
        seed_id: Its number, for commands.
        subsets: What is drawn.
        chunk_size: Models trained at once; None: what fits.
        overwrite: Whether to compute the file again if it is there.

    Raises:
        UserError: Checkpoints are missing or not sound, or were not trained here.
    """

    def __init__(
        self,
        trained: Checkpoints,
        seed: int,
        seed_id: int,
        subsets: Subsets,
        chunk_size: int | None = None,
        *,
        overwrite: bool,
    ) -> None:
        self.at = at = trained.paths
        self.seed = seed
        self.subsets = subsets
        self.chunk_size = chunk_size
        setup, experiment, kind = trained.setup, trained.setup.experiment, subsets.kind
        require_trained_here(experiment, at, seed, seed_id)
        self._checkpoints = trained.load(seed, seed_id, given=False)
        # Which crops are drawn depends on how much is computed at once.
        crops = {"chunk_size": chunk_size} if experiment.random_crop else {}
        self._settings = {**subsets.settings(), **crops, **setup.sources(self._checkpoints)}
        self._path = at.subsets(experiment, kind, seed)
        self._wanted = {**subsets.settings(), **crops, "device": setup.device}
        self._make = subsets_command(at, experiment, kind, seed_id, self._wanted)
        super().__init__(
            setup,
            [self._path],
            at.partial_subsets(experiment, kind, seed),
            at.subsets_lock(experiment, kind, seed),
            overwrite=overwrite,
        )

    def _are_sound(self) -> bool:
        if not self._path.exists():
            return False
        experiment, kind = self.setup.experiment, self.subsets.kind
        content = load_subsets(self.at, experiment, kind, self.seed, self._wanted)
        check_settings(self._path, content["settings"], self._settings, self._make)
        return True

    def _partial_file(self) -> PartialFile:
        identity = subsets_identity(self.setup.experiment, self.subsets.kind, self.seed)
        return PartialFile(
            self._partial, identity, self._settings, make=self._make, overwrite=self.overwrite
        )

    def _compute(self) -> Iterator[str]:
        draws = Draws(self.setup, self.seed, self._checkpoints, self._pieces())
        torch.manual_seed(self.seed)  # for inputs that are random crops
        try:
            results = train_subsets(draws, self.subsets, self.chunk_size)
        except DivergedError:
            self._partial.unlink(missing_ok=True)  # other settings must not find it in their way
            raise
        content = {
            **results,
            "epochs": torch.tensor(self.setup.experiment.kept_epochs),
            "train_idx": self.setup.train.indices,
            "test_idx": self.setup.test.indices,
            **subsets_identity(self.setup.experiment, self.subsets.kind, self.seed),
            "settings": self._settings,
        }
        save(self._path, content)
        self._partial.unlink(missing_ok=True)
        yield f"{self._path}: {self._said(results)}"

    def _said(self, results: dict) -> str:
        n_models, n_train = results["masks"].shape
        if "lengths" not in results:
            return f"{n_models} subsets of {n_train} training samples"
        lengths = results["lengths"]
        n_cut = int((lengths < n_train - 1).sum())
        return f"{n_models} prefixes of {len(lengths)} permutations, {n_cut} of them truncated"
