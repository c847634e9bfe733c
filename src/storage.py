"""Files that are whole or not there: atomic writes, checksums, and settings that must match."""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from src.errors import UserError


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file through a temporary one in the same folder, then rename it.

    Args:
        path: The file to make; its folder is made if it is not there.
        write: Called with the path of the temporary file, which it fills.

    Raises:
        UserError: The folder or the file cannot be written; an earlier file is untouched.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The suffix stays, because pandas and matplotlib choose the format by it.
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}"
        )
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes files that only their owner reads; give them the usual rights.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        # torch.save reports a full disk as a RuntimeError of its archive writer.
        if isinstance(error, RuntimeError) and "write" not in str(error).lower():
            raise
        reason = error.strerror if isinstance(error, OSError) else "is the disk full?"
        raise UserError(f"cannot write {path}: {reason}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def save(path: Path, content: dict) -> None:
    """Save a dictionary of tensors and plain values, with its checksum, atomically."""
    content = {**content, "checksum": digest(content)}
    write_atomically(path, lambda temporary: torch.save(content, temporary))


def load(path: Path, make: str) -> dict:
    """Load a dictionary that `save` wrote.

    Args:
        path: The file.
        make: The command that makes the file, for the error message.

    Raises:
        UserError: The file is missing, cannot be read, is damaged, or is not one of `save`'s.
    """
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; make it with: {make}") from None
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is damaged; delete it and make it again with: {make}") from error
    if not isinstance(content, dict) or "checksum" not in content:
        raise UserError(f"{path} has no checksum, so not this project's; make it with: {make}")
    if content.pop("checksum") != digest(content):
        raise UserError(f"{path} is damaged; delete it and make it again with: {make}")
    return content


def digest(content: Any) -> str:
    """Return the SHA-256, in hexadecimal, of nested dictionaries, lists, tensors and values.

    The order of a dictionary's keys and the device of a tensor do not change it.
    """
    hasher = hashlib.sha256()
    _feed(hasher, content)
    return hasher.hexdigest()


def _feed(hasher: hashlib._Hash, content: Any) -> None:
    # Every piece carries its type and length, so that no two contents give the same bytes.
    if isinstance(content, torch.Tensor):
        hasher.update(f"tensor {content.dtype} {tuple(content.shape)} ".encode())
        flat = content.detach().cpu().contiguous().reshape(-1)
        hasher.update(flat.view(torch.uint8).numpy())
    elif isinstance(content, dict):
        hasher.update(f"dict {len(content)} ".encode())
        for key in sorted(content, key=str):
            _feed(hasher, key)
            _feed(hasher, content[key])
    elif isinstance(content, list | tuple):
        hasher.update(f"list {len(content)} ".encode())
        for item in content:
            _feed(hasher, item)
    else:
        text = repr(content)
        hasher.update(f"{type(content).__name__} {len(text)} {text} ".encode())


def is_finished(path: Path, settings: dict, *, make: str, overwrite: bool) -> bool:
    """Say whether a file is there already, computed with the same settings.

    Args:
        path: The file to be made.
        settings: What decides the numbers that the file would hold.
        make: The command that makes the file, for the error message.
        overwrite: Whether a file that is there is to be computed again.

    Raises:
        UserError: The file is there with other settings, or damaged, and `overwrite` is False.
    """
    if overwrite or not path.exists():
        return False
    check_settings(path, load(path, make).get("settings", {}), settings)
    return True


def check_settings(path: Path, found: dict, wanted: dict) -> None:
    """Raise UserError, naming every difference, unless a file's settings are the wanted ones."""
    differences = [
        f"{key} is {_short(found.get(key))}, now {_short(wanted.get(key))}"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key)
    ]
    if differences:
        raise UserError(
            f"{path} was made with other settings ({'; '.join(differences)}): "
            "use --overwrite to compute it again, or --root for a folder of its own"
        )


def _short(value: Any) -> str:
    """Digests are told apart by their first characters."""
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 and " " not in text else text
