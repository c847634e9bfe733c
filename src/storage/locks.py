"""One process at a job: lock files that a crash does not leave behind.

A lock is a file made by O_CREAT | O_EXCL, which is atomic on local file systems, NFS 3 and later,
Lustre and SMB; flock, which some network folders do not carry to other machines, is not used. It
says who holds it, and its time of change is renewed while its holder lives. It is stale if its
holder ran on this machine and is known to be gone or, where that cannot be seen, if it has not been
renewed for two minutes by the file system's own clock, so that machines need not agree on the time.

What a wrong verdict costs, for example of a process that was suspended for longer: a job is
computed twice. Files stay whole, since each is renamed into place.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from src.errors import UserError
from src.messages import say

RENEWED_EVERY = 10.0  # seconds
STALE_AFTER = 120.0  # seconds without renewal, of a holder that cannot be seen
WAITED_SILENTLY = 5.0  # seconds for a lock
EMPTY_FOR = 10.0  # seconds between the making of a lock and its content, at most


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        host: Name of its machine.
        pid: Its process id.
        machine: What tells boots and containers apart, within which process ids are unique.
        started: When the process started, as its machine counts it: ids are used again.
        token: Different for every lock that was ever made.
    """

    host: str
    pid: int
    machine: str
    started: str
    token: str

    @classmethod
    def this(cls) -> Holder:
        """Return this process as the holder of a new lock."""
        pid = os.getpid()
        return cls(socket.gethostname(), pid, _machine(), _started(pid), secrets.token_hex(8))

    def is_here(self) -> bool:
        """Say whether the process is, or was, on this machine."""
        return (self.host, self.machine) == (socket.gethostname(), _machine())

    def is_gone(self) -> bool | None:
        """Say whether the process has ended; None: that cannot be seen."""
        if not self.is_here():
            return None
        try:
            return _started(self.pid) != self.started
        except PermissionError:
            return None

    def __str__(self) -> str:
        """Return the process as a person looks for it."""
        return f"{self.host}:{self.pid}"


@dataclass(frozen=True)
class Unreadable:
    """Who holds a lock that this person may not read.

    Attributes:
        path: The lock.
        owner: Name of the person, or number.
    """

    path: Path
    owner: str

    def __str__(self) -> str:
        """Return what is known, and what to do."""
        return (
            f"a process of {self.owner} (whose lock {self.path} cannot be read: chmod a+r shows "
            "which; once that has ended, delete the lock)"
        )


class HeldError(Exception):
    """Another process is at work on the job; the message says which."""


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a lock; with it goes the right to write the files that it stands for.

    Raises:
        HeldError: A living process holds it.
        UserError: The lock file cannot be written.
    """
    me = Holder.this()
    _acquire(path, me)
    stop = threading.Event()
    renewing = threading.Thread(target=_renew, args=(path, me, stop), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        stop.set()
        renewing.join()
        if _read(path) == me:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Hold a lock as `lock` does, once its present holder has ended; a line says who that is."""
    since, told = time.monotonic(), False
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock(path))
                break
            except HeldError as error:
                if not told and time.monotonic() - since > WAITED_SILENTLY:
                    say(f"waiting for {error}, which holds {path}")
                    told = True
                time.sleep(0.5)
        yield


def holder(path: Path) -> Holder | Unreadable | None:
    """Return the process that holds a lock; None if there is none that may be alive."""
    found = _read(path)
    return None if isinstance(found, str | None) or _is_stale(path, found) else found


def require_free(path: Path) -> None:
    """Raise HeldError if a process that may be alive holds a lock."""
    found = holder(path)
    if found is not None:
        raise HeldError(str(found))


def _acquire(path: Path, me: Holder) -> None:
    while not _create(path, me):
        found = _read(path)
        if found is None:
            continue  # released just now
        if _is_stale(path, found):
            _break(path, found)
        elif isinstance(found, str):
            time.sleep(0.1)  # its content is about to come
        else:
            raise HeldError(str(found))


def _create(path: Path, me: Holder) -> bool:
    """Make a lock file; return False if there is one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        if path.parent.is_dir():
            return False
        raise UserError(f"cannot write {path}: {path.parent} is a file") from None
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            with contextlib.suppress(OSError):  # a file system without permissions
                os.fchmod(handle, 0o644)  # whatever the umask: others are to see who holds it
            json.dump(asdict(me), file)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return True


def _read(path: Path) -> Holder | Unreadable | str | None:
    """Return a lock's holder, an empty text if the lock is not whole, or None if there is none."""
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except PermissionError:
        return Unreadable(path, _owner(path))
    except (OSError, ValueError, TypeError):
        return ""


def _owner(path: Path) -> str:
    """Return the name of a file's owner, or number where it has none here."""
    try:
        return path.owner()
    except (OSError, KeyError):
        with contextlib.suppress(OSError):
            return f"user {path.stat().st_uid}"
        return "another user"


def _is_stale(path: Path, found: Holder | Unreadable | str) -> bool:
    if isinstance(found, Holder) and (is_gone := found.is_gone()) is not None:
        return is_gone
    try:
        # A new file's time is the file system's own, also where that is another machine's.
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            now = os.fstat(probe.fileno()).st_mtime
    except OSError:
        now = time.time()
    with contextlib.suppress(OSError):
        return now - path.stat().st_mtime > (STALE_AFTER if found else EMPTY_FOR)
    return False


def _break(path: Path, stale: Holder | Unreadable | str) -> None:
    """Remove a stale lock, and never the fresh one of a process that was quicker.

    Only who holds a second lock, made for this one's token, may remove it. The token is used once,
    so a lock that still has it under the second lock is the stale one.
    """
    token = stale.token if isinstance(stale, Holder) else "unread"
    right = path.with_name(f"{path.name}.{token}")
    if not _create(right, Holder.this()):
        found = _read(right)  # who breaks it crashed, or is about to be done
        if found is not None and _is_stale(right, found):
            _break(right, found)
        else:
            time.sleep(0.01)
        return
    try:
        if _read(path) == stale and _is_stale(path, stale):
            path.unlink(missing_ok=True)
    except PermissionError as error:  # a folder in which only who made a file may remove it
        raise UserError(f"{path} is left of a process that has ended; delete it") from error
    finally:
        right.unlink(missing_ok=True)


def _renew(path: Path, me: Holder, stop: threading.Event) -> None:
    while not stop.wait(RENEWED_EVERY):
        if _read(path) != me:
            return
        with contextlib.suppress(OSError):
            os.utime(path)


def _started(pid: int) -> str | None:
    """Return when a process started, which does not change with the clock; None: it has ended.

    Raises:
        PermissionError: It lives, and is hidden from this person.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        # proc(5): starttime, in ticks since boot.
        return None if state in b"ZX" else fields[18].decode()
    except OSError:
        if Path("/proc/self/stat").exists():  # Linux, where /proc may show a person's own alone
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 0)
                raise PermissionError(f"process {pid} is hidden") from None
            return None
    try:
        return str(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied as error:
        raise PermissionError(str(error)) from None


def _machine() -> str:
    """Return what this boot, and this container, have to themselves."""
    parts = []
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip(),
        lambda: str(Path("/proc/self/ns/pid").readlink()),
    ):
        with contextlib.suppress(OSError):  # not Linux
            parts.append(read())
    return " ".join(parts)
