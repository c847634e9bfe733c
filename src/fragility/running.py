"""The results of a study: which there are, and how those that are missing come about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.argument_types import seed_ids_text
from src.errors import UserError
from src.experiments import Paths
from src.fragility.studies import Configuration, load_study
from src.launch.jobs import Job
from src.storage.files import check_settings, load, remove_leftovers, save
from src.storage.locks import lock

if TYPE_CHECKING:
    import torch

SCRIPT = "run_fragility.py"
MACHINE = ("torch", "device")
Seeds = Sequence[tuple[int, int]]  # (seed_id, seed) of each


class Results:
    """The files of a study at a scale, one for each configuration and seed.

    Args:
        study: Name of the study.
        scale: Name of the scale.
        paths: The paths.
        only: Names of the configurations that are meant; None: all.

    Raises:
        UserError: There is no such configuration.
    """

    def __init__(self, study: str, scale: str, paths: Paths, only: list[str] | None = None) -> None:
        self.study, self.scale, self.paths = study, scale, paths
        self.module = load_study(study)
        known = {c.name: c for c in self.module.configurations(scale)}
        for name in only or ():
            if name not in known:
                raise UserError(
                    f"unknown configuration {name!r} of {study}: choose from {', '.join(known)}"
                )
        names = known if only is None else dict.fromkeys(only)
        self._only = () if only is None else ("--only", *names)
        self.configurations = [known[name] for name in names]

    def pieces(self, seeds: Seeds) -> Iterator[tuple[Configuration, Seeds]]:
        """Yield what one process computes at once: a configuration, and seeds of it."""
        for configuration in self.configurations:
            if self.module.SEEDS_TOGETHER:
                yield configuration, seeds
            else:
                yield from ((configuration, [one]) for one in seeds)

    def path(self, configuration: Configuration, seed: int) -> Path:
        """Return the file of a configuration and a seed."""
        return self.paths.fragility(self.study, self.scale) / configuration.name / f"{seed}.pt"

    def compute(
        self,
        seeds: Seeds,
        device: torch.device,
        source: Path | None,
        *,
        overwrite: bool,
        if_held: Callable[[Path], AbstractContextManager],
    ) -> Iterator[str]:
        """Compute what is missing; yield a line for each file.

        Args:
            seeds: (seed_id, seed) of each seed.
            device: Where it is computed.
            source: Folder of data set repositories.
            overwrite: Whether to compute files again that are there.
            if_held: Returns the context in which a folder's files are computed, which takes the
                HeldError of another process that computes them.

        Raises:
            UserError: A file that is there was made with other settings, or is not sound.
        """
        wanted = list(self.pieces(seeds))
        for configuration, some in wanted:  # all are checked before the first is computed
            self._missing(configuration, some, device, overwrite=overwrite)
        for configuration, some in wanted:
            paths = [self.path(configuration, seed) for _, seed in some]
            with if_held(paths[0].parent):
                missing = self._missing(configuration, some, device, overwrite=overwrite)
                if missing:
                    yield from self._compute(
                        configuration, some, device, source, overwrite=overwrite
                    )
                there = {seed for _, seed in some} - {seed for _, seed in missing}
                for path in paths:
                    if int(path.stem) in there:
                        yield f"{path}: finished before"

    def _compute(
        self,
        configuration: Configuration,
        seeds: Seeds,
        device: torch.device,
        source: Path | None,
        *,
        overwrite: bool,
    ) -> Iterator[str]:
        data = self.module.load(configuration, source)  # before a folder is made
        with lock(self._lock(configuration, seeds)):
            for _, seed in seeds:
                remove_leftovers(self.path(configuration, seed))
            # Some may be by a process that has let go of the lock just now.
            missing = self._missing(configuration, seeds, device, overwrite=overwrite)
            measured = self.module.measure(
                configuration, [seed for _, seed in missing], device, data
            )
            for (_, seed), found in zip(missing, measured, strict=True):
                path = self.path(configuration, seed)
                settings = {**asdict(configuration), **_machine(device)}
                save(path, {**found, **self._identity(configuration, seed), "settings": settings})
                yield str(path)

    def _missing(
        self, configuration: Configuration, seeds: Seeds, device: torch.device, *, overwrite: bool
    ) -> Seeds:
        """Return the seeds without a file; those that are there are checked."""
        if overwrite:
            return seeds
        missing = []
        for seed_id, seed in seeds:
            if self.path(configuration, seed).exists():
                self._load(configuration, seed_id, seed, device)
            else:
                missing.append((seed_id, seed))
        return missing

    def load(self, seeds: Seeds) -> dict[str, dict[int, dict[str, Any]]]:
        """Return what was measured, by the configuration's name and the seed.

        Configurations without a file are left out.

        Raises:
            UserError: There is no file at all, or one was made with other settings or is not sound.
        """
        found: dict[str, dict[int, dict[str, Any]]] = {}
        for configuration in self.configurations:
            there = {
                seed: self._load(configuration, seed_id, seed)
                for seed_id, seed in seeds
                if self.path(configuration, seed).exists()
            }
            if there:
                found[configuration.name] = there
        if not found:
            folder = self.paths.fragility(self.study, self.scale)
            make = self._command(*self._only, "--seed_id", seed_ids_text(i for i, _ in seeds))
            raise UserError(f"{folder} has no results of these seeds; make them with: {make}")
        return found

    def _load(
        self,
        configuration: Configuration,
        seed_id: int,
        seed: int,
        device: torch.device | None = None,
    ) -> dict[str, Any]:
        """Return the content of a file that the configuration made, on a device; None: on any."""
        path = self.path(configuration, seed)
        make = self._command("--only", configuration.name, "--seed_id", seed_id)
        content = load(
            path, make, identity=self._identity(configuration, seed), holds=("settings",)
        )
        found = content["settings"]
        machine = _machine(device) if device else {k: found[k] for k in MACHINE if k in found}
        check_settings(path, found, {**asdict(configuration), **machine}, make)
        return content

    def check_data(self, seeds: Seeds, source: Path | None) -> None:
        """Load the data of each kind that what is missing is computed from, before jobs start.

        Args:
            seeds: (seed_id, seed) of each seed.
            source: Folder of data set repositories.

        Raises:
            UserError: The data are not there, or are not those of the data set.
        """
        kinds = {
            getattr(configuration, "images", None): configuration
            for configuration in self.configurations
            if not all(self.path(configuration, seed).exists() for _, seed in seeds)
        }
        for configuration in kinds.values():
            self.module.load(configuration, source)

    def jobs(self, seeds: Seeds, options: list[str]) -> list[Job]:
        """Return the jobs that compute everything, each a call of the script.

        Args:
            seeds: (seed_id, seed) of each seed.
            options: Further arguments of each call.
        """
        jobs = []
        for configuration, some in self.pieces(seeds):
            ids = seed_ids_text(seed_id for seed_id, _ in some)
            log = self.paths.fragility_log(self.study, self.scale, configuration.name, ids)
            jobs.append(
                Job(
                    f"{self.study} {self.scale} {configuration.name}, seed_id {ids}",
                    None,
                    "fragility",
                    some[0][0],
                    self._call("--only", configuration.name, "--seed_id", ids, *options),
                    tuple(self.path(configuration, seed) for _, seed in some),
                    self._lock(configuration, some),
                    log,
                )
            )
        return jobs

    def _lock(self, configuration: Configuration, seeds: Seeds) -> Path:
        name = "all" if self.module.SEEDS_TOGETHER else str(seeds[0][1])
        return self.path(configuration, 0).with_name(f".{name}.lock")

    def _call(self, *options: object) -> tuple[str, ...]:
        return self.paths.call(SCRIPT, "--study", self.study, "--scale", self.scale, *options)

    def _command(self, *options: object) -> str:
        return self.paths.command(SCRIPT, "--study", self.study, "--scale", self.scale, *options)

    def _identity(self, configuration: Configuration, seed: int) -> dict[str, Any]:
        return {
            "study": self.study,
            "scale": self.scale,
            "configuration": configuration.name,
            "seed": seed,
        }


def _machine(device: torch.device) -> dict[str, Any]:
    """Return what is recorded of the machine, because it changes rounding: all of MACHINE."""
    import torch

    return dict(zip(MACHINE, (str(torch.__version__), device.type), strict=True))
