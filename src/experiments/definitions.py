"""Files of one's own that register models and tasks (`--define FILE.py`, TDA_DEFINE)."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from src.errors import UserError
from src.experiments.models import MODELS
from src.experiments.tasks import TASKS

VARIABLE = "TDA_DEFINE"  # files, separated as those of PATH are

_REGISTRIES = (MODELS, TASKS)
_registered: dict[Path, list[tuple[dict, str]]] = {}  # what each file made known


def files_of_environment() -> list[Path]:
    """Return the files that the environment variable names."""
    return [Path(name) for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]


def load_definitions(files: Iterable[Path]) -> list[Path]:
    """Run files that register models and tasks; return their absolute paths, each once.

    A file may import modules that lie beside it. One that was run before in this process is run
    again, in place of what it registered then.

    Raises:
        UserError: A file is not there, does not run, or registers what is not allowed; nothing that
            it registered stays.
    """
    unique = list(dict.fromkeys(Path(file).resolve() for file in files))
    for file in unique:
        _forget(file)
        before = [set(registry) for registry in _REGISTRIES]
        try:
            _run(file)
        finally:
            _registered[file] = [
                (registry, name)
                for registry, known in zip(_REGISTRIES, before, strict=True)
                for name in registry
                if name not in known
            ]
            if sys.exc_info()[0] is not None:
                _forget(file)
        if not _registered[file]:
            raise UserError(
                f"{file} registers nothing: it has to call register_model or register_task of "
                "src.experiments"
            )
    return unique


def _forget(file: Path) -> None:
    for registry, name in _registered.pop(file, []):
        registry.pop(name, None)


def _run(file: Path) -> None:
    if not file.is_file():
        raise UserError(f"{file} does not exist: --define takes a Python file")
    spec = importlib.util.spec_from_file_location(f"definitions_{file.stem}", file)
    if spec is None:
        raise UserError(f"{file} is no Python file: --define takes one")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles ask for it
    sys.path.append(str(file.parent))  # behind everything: what lies there hides no library
    try:
        spec.loader.exec_module(module)
    except UserError as error:
        raise UserError(f"{_where(file, error)}: {error}") from error
    except SyntaxError as error:
        raise UserError(f"{file}, line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:  # whatever a file of one's own may do
        raise UserError(
            f"{_where(file, error)}: {type(error).__name__}: {first_line(error)}"
        ) from error
    finally:
        sys.path.remove(str(file.parent))


def _where(file: Path, error: BaseException) -> str:
    """Return the file and the last of its lines that an error came through."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(file)
    ]
    return f"{file}, line {lines[-1]}" if lines else str(file)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).splitlines() or [""])[0][:200]
