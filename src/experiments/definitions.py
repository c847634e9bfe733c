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

VARIABLE = "TDA_DEFINE"  # names files, separated as those of PATH are

_REGISTRIES = (MODELS, TASKS)
_registered: dict[Path, list[tuple[dict, str]]] = {}  # what each file made known


def files_of_environment() -> list[Path]:
    """Return the files that the environment variable names, where they are made absolute.

    Jobs find it in their environment, and are started from another folder.
    """
    names = filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))
    files = [Path(name).absolute() for name in names]
    if files:
        os.environ[VARIABLE] = os.pathsep.join(map(str, files))
    return files


def loaded_files() -> list[Path]:
    """Return the absolute paths of the files that are loaded."""
    return list(_registered)


def load_definitions(files: Iterable[Path]) -> list[Path]:
    """Run files that register models and tasks, in place of those that were run before.

    A file may import modules that lie beside it.

    Returns:
        Their absolute paths, each once.

    Raises:
        UserError: A file is not there, does not run, or registers what is not allowed; nothing that
            it registered stays.
    """
    for file in list(_registered):
        _forget(file)
    unique = list(dict.fromkeys(Path(file).resolve() for file in files))
    for file in unique:
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


def defined_tasks() -> list[str]:
    """Return the names of the tasks that files registered."""
    return [name for known in _registered.values() for registry, name in known if registry is TASKS]


def said_by(what: str, error: BaseException) -> str:
    """Return one line of an error that a function of a file raised: where, what and the error."""
    files = {str(file) for file in _registered}
    lines = [
        f"{frame.filename}, line {frame.lineno}: "
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename in files
    ]
    return f"{lines[-1] if lines else ''}{what}: {described(error)}"


def described(error: BaseException) -> str:
    """Return an error's type and the first line of its message."""
    if isinstance(error, UserError):
        return str(error)
    first = (str(error).splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {first}"


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
    except SyntaxError as error:
        raise UserError(f"{error.filename or file}, line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:  # whatever a file of one's own may do
        raise UserError(f"{_where(file, error)}: {described(error)}") from error
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
