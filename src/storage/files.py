"""Files that are whole or not there, and that say what they are.

Writes are atomic, a checksum tells damage, and whoever loads a file names what it must be: a path
alone proves nothing of what was copied there.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from src.errors import UserError

# A temporary file of this age belongs to no process that is still writing.
ABANDONED_AFTER = 3600  # seconds


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file through a temporary one in the same folder, then rename it.

    Args:
        path: The file to make; its folder is made if it is not there.
        write: Called with the path of the temporary file, which it fills.

    Raises:
        UserError: The folder or the file cannot be written; an earlier file is untouched.
    """
    with _temporary_for(path) as temporary:
        _fill(temporary, write)
        temporary.replace(path)


def save(path: Path, content: dict) -> None:
    """Save a dictionary of tensors and plain values, with its checksum, atomically."""
    write_atomically(path, _writer(content))


def save_together(contents: dict[Path, dict]) -> None:
    """Save files that belong together: all of them, or the earlier ones stay.

    They are written in full before the first is put in place. A process that is killed in between
    leaves a part of the new ones and none of the earlier ones, never a mixture.

    Raises:
        UserError: A folder or a file cannot be written; earlier files are untouched.
    """
    with contextlib.ExitStack() as stack:
        temporaries = {}
        for path, content in contents.items():
            temporaries[path] = stack.enter_context(_temporary_for(path))
            _fill(temporaries[path], _writer(content))
        for path in contents:
            path.unlink(missing_ok=True)
        for path, temporary in temporaries.items():
            temporary.replace(path)


@contextlib.contextmanager
def _temporary_for(path: Path) -> Iterator[Path]:
    """Make an empty temporary file beside `path`, and remove it if it is still there at the end.

    Raises:
        UserError: Something went wrong with the disk in between.
    """
    temporary = None
    try:
        remove_leftovers(path, ABANDONED_AFTER)
        path.parent.mkdir(parents=True, exist_ok=True)
        # The suffix stays, because pandas and matplotlib choose the format by it.
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}"
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _fill(temporary: Path, write: Callable[[Path], Any]) -> None:
    """Write a temporary file and bring it to the disk, with the rights of an ordinary file."""
    write(temporary)
    with temporary.open("rb") as written:
        os.fsync(written.fileno())
    # mkstemp makes files that only their owner reads.
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)


def _writer(content: dict) -> Callable[[Path], Any]:
    # Through memory, because torch.save hides a full disk behind an error of its own, and would put
    # the temporary file's name into the archive, so that equal contents were different files.
    archive = io.BytesIO()
    torch.save({**content, "checksum": digest(content)}, archive)
    # A copy: where a full disk's traceback holds a view of the archive, Python 3.12 crashes when it
    # collects both.
    contents = archive.getvalue()
    return lambda path: path.write_bytes(contents)


def remove_leftovers(path: Path, age: float = 0) -> None:
    """Remove the temporary files of `path` that killed processes left.

    Args:
        path: The file that they were to become.
        age: Seconds since they were written to, at least. 0 is for who alone may write `path`.
    """
    for leftover in path.parent.glob(f".{path.stem}.*.tmp{path.suffix}"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime >= age:
                leftover.unlink()


def read(path: Path, *, missing: str, damaged: str) -> Any:
    """Return what `torch.save` put into a file, tensors and plain values alone, on the CPU.

    Args:
        path: The file.
        missing: What is said where it does not exist.
        damaged: What is said where it is no such file.

    Raises:
        UserError: The file is missing, cannot be read, or is no such file.
    """
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise UserError(missing) from None
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # damaged bytes make the unpickler raise errors of many kinds
        raise UserError(damaged) from error


def load(
    path: Path, make: str, *, identity: dict[str, Any] | None = None, holds: Iterable[str] = ()
) -> dict:
    """Load a dictionary that `save` wrote.

    Args:
        path: The file.
        make: The command that makes the file and takes --overwrite, for the error message.
        identity: What the file must say it is, for example its experiment and its seed; each stands
            at the top or among the file's settings.
        holds: Further keys that it must have.

    Raises:
        UserError: The file is missing, cannot be read, is damaged, is not one of `save`'s, lacks a
            key, or says that it is another.
    """
    again = f"make it again with: {make} --overwrite"
    content = read(
        path,
        missing=f"{path} does not exist; make it with: {make}",
        damaged=f"{path} is damaged; {again}",
    )
    if not isinstance(content, dict) or "checksum" not in content:
        raise UserError(f"{path} has no checksum, so is not this project's; {again}")
    if content.pop("checksum") != digest(content):
        raise UserError(f"{path} is damaged; {again}")
    _check_identity(path, content, identity or {}, holds, again)
    return content


def _check_identity(
    path: Path, content: dict, identity: dict[str, Any], holds: Iterable[str], again: str
) -> None:
    settings = content.get("settings", {})
    said = {**settings, **content} if isinstance(settings, dict) else {}
    missing = [key for key in (*identity, *holds) if key not in said]
    if missing:
        raise UserError(
            f"{path} does not hold {', '.join(missing)}, as files of earlier versions do not; "
            f"{again}"
        )
    if any(_differ(said[key], expected) for key, expected in identity.items()):
        found, expected = (
            ", ".join(f"{key} {of[key]}" for key in identity) for of in (said, identity)
        )
        raise UserError(
            f"{path} says that it is {found}, where {expected} belongs: put the right file back, "
            f"or {again}"
        )


def _differ(a: Any, b: Any) -> bool:
    """Compare plain values; a tensor in the place of one differs, rather than comparing itself."""
    return type(a) is not type(b) or a != b


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


def check_settings(path: Path, found: dict, wanted: dict, make: str) -> None:
    """Raise UserError, naming every difference, unless a file's settings are the wanted ones.

    Args:
        path: The file.
        found: Its settings.
        wanted: What decides the numbers that it should hold.
        make: The command that makes the file with the wanted settings.
    """
    differences = [
        f"{key} is {_short(found.get(key))}, now {_short(wanted.get(key))}"
        for key in sorted(found.keys() | wanted.keys())
        if _differ(found.get(key), wanted.get(key))
    ]
    if differences:
        raise UserError(
            f"{path} was made with other settings ({'; '.join(differences)}): make it again with: "
            f"{make} --overwrite, or give a --root of its own"
        )


def check_finite(
    path: Path,
    what: str,
    values: torch.Tensor,
    make: str,
    axes: dict[str, Sequence] | None = None,
) -> None:
    """Raise UserError if one of a file's numbers is NaN or infinite.

    Args:
        path: The file.
        what: What the numbers are.
        values: The numbers.
        make: The command that makes the file.
        axes: What the positions along each dimension are called, by the dimension's name; None:
            by their numbers.
    """
    wrong = ~values.isfinite()
    if not wrong.any():
        return
    first = [int(axis[0]) for axis in wrong.nonzero(as_tuple=True)]
    where = f"position {first}"
    if axes is not None:
        names = zip(axes.items(), first, strict=True)
        where = ", ".join(f"{name} {called[i]}" for (name, called), i in names)
    raise UserError(
        f"{path}: not finite are {int(wrong.sum()):,} of {values.numel():,} {what}, the first "
        f"({values[tuple(first)].item()}) at {where}: make it again with: {make} --overwrite"
    )


def _short(value: Any) -> str:
    """Digests are told apart by their first characters."""
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 and " " not in text else text
