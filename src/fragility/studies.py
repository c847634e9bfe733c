"""The studies by name, and what each has to offer."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    import torch

STUDIES = ("iris", "mnist", "deep")
SCALES = ("quick", "paper")


class Configuration(Protocol):
    """One network, data set and way of training; a frozen dataclass.

    Its fields are plain values, all that decides the numbers but the seed.

    Attributes:
        name: Of the folder of its results.
    """

    @property
    def name(self) -> str: ...  # noqa: D102


class Study(Protocol):
    """A module of this package that is named as the study is.

    Attributes:
        SEEDS_TOGETHER: Whether the seeds of a configuration are computed together, by one process.
    """

    SEEDS_TOGETHER: bool

    def configurations(self, scale: str) -> list[Configuration]:
        """Return the configurations at one of SCALES."""

    def load(self, configuration: Configuration, source: Path | None) -> Any:
        """Return the data that a configuration is measured on.

        Args:
            configuration: One of `configurations`.
            source: Folder that holds clones of the hub's data set repositories; None: as
                `src.data.sources` finds them.

        Raises:
            UserError: They are not there.
        """

    def measure(
        self, configuration: Configuration, seeds: list[int], device: torch.device, data: Any
    ) -> Iterator[dict[str, Any]]:
        """Yield for each seed, in their order, what is measured: tensors and plain values.

        Args:
            configuration: One of `configurations`.
            seeds: The seeds, at least one.
            device: Where it is computed.
            data: What `load` returned.

        Raises:
            UserError: Nothing finite came out.
        """

    def report(self, results: dict[str, dict[int, dict[str, Any]]], folder: Path) -> list[str]:
        """Write tables and figures; return what to tell the person, line by line.

        Args:
            results: What was measured, by the configuration's name and the seed. Configurations and
                seeds may be missing; each configuration that is there has one seed at least.
            folder: Where the files go.
        """


def load_study(name: str) -> Study:
    """Return the study called `name`, one of STUDIES."""
    return cast(Study, import_module(f"src.fragility.{name}"))
