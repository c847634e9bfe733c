"""What makes the numbers of a page: the versions of libraries, and the commit of the code."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version

from src.experiments import REPOSITORY

_PACKAGES = ("torch", "numpy", "pandas", "scipy")


def revision() -> str | None:
    """Return the commit of this clone, with a word where files were changed since.

    Returns:
        None where this is no clone of its own, or git is not there or does not answer.
    """
    # Of a caller that is git itself, such as a hook.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(REPOSITORY), *arguments],
            env={**inherited, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        ).stdout

    try:
        # Empty at the top of a work tree; a copy within somebody else's clone is a folder in it.
        if git("rev-parse", "--show-prefix").strip():
            return None
        commit = git("rev-parse", "HEAD").strip()[:12]
        return f"{commit} with changes" if git("status", "--porcelain").strip() else commit
    except (OSError, subprocess.SubprocessError):
        return None


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that make the numbers of a page."""
    return {"Python": platform.python_version()} | {p: version(p) for p in _PACKAGES}


def what_makes_a_page() -> dict[str, object]:
    """Return the versions of libraries and, where it is known, the commit, for people."""
    versions = ", ".join(f"{name} {number}" for name, number in library_versions().items())
    commit = revision()
    return {"page made with": versions} | ({} if commit is None else {"commit": commit})
