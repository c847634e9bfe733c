"""Repositories of data sets: of the hub, or in folders, by the library `datasets`."""

from __future__ import annotations

import errno
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from src.errors import UserError
from src.experiments import SOURCE_VARIABLE

if TYPE_CHECKING:
    import datasets


def load_from_folder(folder: Path) -> datasets.DatasetDict:
    """Return all splits of a folder in the hub's layout, or of class folders of images.

    Raises:
        UserError: It cannot be read, or there is no room for what the library keeps of it.
    """
    try:
        temporary = tempfile.TemporaryDirectory(prefix="tda-datasets-")
    except OSError as error:
        raise UserError(
            f"cannot make a temporary folder: {error.strerror}; set the environment variable "
            "TMPDIR to a folder that can be written"
        ) from error
    # The library knows a file by its path and time alone, so a cache that lasts could give what
    # another file held. What is mapped into memory stays readable when its folder is gone.
    with temporary as cache:
        try:
            return _load(str(folder), cache)
        except Exception as error:  # its libraries raise errors of many kinds for the same cause
            _refuse_if_not_writable(error, "TMPDIR", folder)
            raise UserError(f"cannot read {folder}: {_reason(error)}") from error


def load_from_hub(repository: str) -> datasets.DatasetDict:
    """Return all splits of a repository of the hub.

    Raises:
        UserError: It cannot be loaded, or there is no room for it.
    """
    if Path(repository).is_dir():
        raise UserError(
            f"the folder {repository} in {Path.cwd()} would be taken for the hub's: start "
            "from another folder, or read that one by --source ."
        )
    try:
        return _load(repository, None)
    except Exception as error:
        _refuse_if_not_writable(error, "HF_HOME")
        raise UserError(
            f"cannot load {repository} from the hub ({_reason(error)}): give a folder "
            f"with a clone of it by --source DIR or {SOURCE_VARIABLE}, or use the task digits3, "
            "which needs no download"
        ) from error


def _load(location: str, cache: str | None) -> datasets.DatasetDict:
    import datasets

    datasets.disable_progress_bars()
    # Its warnings about every retry would bury the one line that says what to do.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return datasets.load_dataset(location, cache_dir=cache)


def _refuse_if_not_writable(error: Exception, variable: str, source: Path | None = None) -> None:
    """Raise UserError where an error is of the cache, whose folder a variable names.

    Of what the library opens, all that does not lie in the source is its own.
    """
    for cause in _causes(error):
        if not isinstance(cause, OSError):
            continue
        path = cause.filename
        in_cache = path is not None and not (source and Path(path).is_relative_to(source))
        if in_cache or cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise UserError(
                f"cannot write {path or 'what is loaded'}: {cause.strerror}; set the environment "
                f"variable {variable} to a folder that can be written and has room"
            ) from error


def _causes(error: BaseException | None) -> list[BaseException]:
    """Return an error and what it was raised for, the first cause last."""
    causes = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes


def _reason(error: Exception) -> str:
    """Return the first line of the first cause."""
    cause = _causes(error)[-1]
    return (str(cause).splitlines() or [type(cause).__name__])[0][:200]
