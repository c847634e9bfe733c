"""The compiled kernels: built once for a processor, in a second or two, and kept beside the source.

Where that cannot be written to, they are kept in the person's cache. Where there is no compiler,
what they compute is composed of torch's operations, which takes longer and gives the same numbers
to rounding.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from src.messages import say

SOURCE = Path(__file__).with_name("kernels.cpp")
BUILT = Path(__file__).with_name("built")
# No flag lets the compiler reorder a sum: the numbers are the same on any number of threads.
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC")
X86_FLAGS = ("-mprefer-vector-width=512",)  # where there are vectors of so many bits
NUMBERS = {torch.float32: "float", torch.float64: "double"}

_enabled = True


def are_there(dtype: torch.dtype) -> bool:
    """Say whether there are kernels for numbers of a type; compiles them where it is the first.

    There are none where they could not be compiled, or are switched off.
    """
    return _enabled and dtype in NUMBERS and _library(dtype) is not None


def are_for(*tensors: Tensor) -> bool:
    """Say whether there are kernels for some tensors: on a CPU, of one type of floats."""
    first = tensors[0]
    return (
        first.device.type == "cpu"
        and all(tensor.dtype == first.dtype for tensor in tensors)
        and are_there(first.dtype)
    )


def have_memory(*tensors: Tensor) -> bool:
    """Say whether kernels can read tensors, as they cannot in a transformation of torch.func."""
    try:
        for tensor in tensors:
            tensor.data_ptr()
    except RuntimeError:
        return False
    return True


def call(name: str, dtype: torch.dtype, *arguments: int) -> int:
    """Call a kernel for numbers of a type with sizes and addresses, which are int64 all."""
    return getattr(_library(dtype), name)(*map(ctypes.c_int64, arguments))


def pointer(tensor: Tensor) -> int:
    """Return the address of a tensor's memory."""
    return tensor.data_ptr()


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Have everything composed of torch's operations, to compare with."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


@functools.cache
def _library(dtype: torch.dtype) -> ctypes.CDLL | None:
    try:
        try:
            built = build(SOURCE, NUMBERS[dtype], BUILT)
        except OSError:
            built = build(SOURCE, NUMBERS[dtype], _cache())
        # OpenMP's functions are found in torch's own library, so that both have the same threads.
        return ctypes.CDLL(str(built))
    except (OSError, ValueError, RuntimeError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        say(
            f"{SOURCE.name} was not compiled ({reason[0] if reason else error}): going on with "
            "torch's operations alone, the CNNs take about three times as long"
        )
        return None


def build(source: Path, number: str, folder: Path) -> Path:
    """Return the compiled library of a source file, compiled now if it was not before.

    The file's name tells source, flags, compiler and processor, so that machines that share a
    folder each find their own. Any number of processes may build at once.

    Args:
        source: What is compiled, with the headers beside it.
        number: The type of its numbers.
        folder: Where the library is kept.

    Raises:
        OSError: There is no compiler, or the folder cannot be written.
        subprocess.CalledProcessError: The compiler failed.
    """
    compiler = _compiler()
    flags = (*FLAGS, *(X86_FLAGS if platform.machine() in ("x86_64", "AMD64") else ()))
    flags = (*flags, f"-DNUMBER={number}")
    sources = [source, *sorted(source.parent.glob("*.h"))]
    texts = [path.read_text(encoding="utf-8") for path in sources]
    described = [*texts, *flags, *compiler, _processor()]
    name = hashlib.sha256("\0".join(described).encode()).hexdigest()[:16]
    library = folder / f"{source.stem}-{name}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            compiled, linked = Path(scratch) / "kernels.o", Path(scratch) / "kernels.so"
            for command in (
                [*compiler, *flags, "-c", source, "-o", compiled],
                [*compiler, "-shared", compiled, "-o", linked],  # without an OpenMP of its own
            ):
                subprocess.run(
                    command,
                    check=True,
                    capture_output=True,
                    encoding="utf-8",
                    errors="replace",
                    env={**os.environ, "TMPDIR": scratch},  # /tmp may be full
                )
            linked.replace(library)
    return library


def _cache() -> Path:
    """Return the folder for compiled kernels in the person's own cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "tda-kernels"


def _compiler() -> list[str]:
    if named := shlex.split(os.environ.get("CXX", "")):
        return named
    for name in ("g++", "c++"):
        if path := shutil.which(name):
            return [path]
    raise FileNotFoundError("there is no g++; the environment variable CXX may name one")


def _processor() -> str:
    """Return what distinguishes processors that run different instructions."""
    with contextlib.suppress(OSError):
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        lines = described.split("\n\n")[0].splitlines()
        keys = ("model name", "flags", "Features", "CPU part")
        return "\n".join(line for line in lines if line.startswith(keys))
    return f"{platform.machine()} {platform.processor()}"
