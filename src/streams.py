"""Standard streams that never end a computation, whatever becomes of what is printed.

A stream may be closed (`2>&-`), its reader gone (`| head`), its disk full, and its encoding without
the letters of the formulas. Files are written all the same; `run` of src.cli says what was lost.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO


class Output(io.FileIO):
    """The file of a standard stream, which takes everything.

    Attributes:
        error: Why something could not be written; None: all was.
    """

    error: OSError | None = None

    def write(self, data: bytes) -> int | None:
        """Write data; what cannot be written is dropped."""
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            return memoryview(data).nbytes


def make_lasting() -> list[Output]:
    """Replace standard output and standard error by streams that raise no error.

    Closed streams lead nowhere from now on. Otherwise the next file that is opened gets their
    number, and whatever a library prints. Streams that were replaced before stay as they are.

    Returns:
        The files of the new streams.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)  # as the standard streams of every process are
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w"))
    outputs = []
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):
            outputs.append(Output(stream.fileno(), "w", closefd=False))
            setattr(sys, name, _text(stream, outputs[-1]))
    return outputs


def _text(stream: TextIO, output: Output) -> TextIO:
    """Return a text stream to `output` with the properties of another one."""
    return io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering or stream.write_through,
    )
