"""Scripts called as people call them: from any folder, with any environment, streams and locale."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from src.cli import OUTPUT_LOST
from src.experiments import REPOSITORY
from tests.conftest import DIGITS
from tests.tools import Result, call_well, run_script, tree

# As many workers as give each one thread, or a busy machine makes it a hundred times slower.
WORKERS = len(os.sched_getaffinity(0))
ONE_SEED = ("--experiment", DIGITS, "--seed_id", 0, "--workers", WORKERS, "--methods")
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
IMPORTABLE = {"PYTHONPATH": str(REPOSITORY)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the samples of digits3 and seed 0, trained by hand. Not to be written to."""
    root = tmp_path_factory.mktemp("by_hand")
    call_well("run_subset_generation", "--root", root, "--task", "digits3")
    call_well("run_cnn_training", "--root", root, "--experiment", DIGITS, "--seed_id", 0)
    return root


@pytest.fixture
def new(root: Path, tmp_path: Path) -> Path:
    """A root with the samples of digits3."""
    shutil.copytree(root / "data", tmp_path / "root" / "data")
    return tmp_path / "root"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Another clone, of other hyper-parameters."""
    folder = tmp_path / "clone"
    shutil.copytree(REPOSITORY / "src", folder / "src", ignore=shutil.ignore_patterns("built"))
    for script in [*REPOSITORY.glob("run_*.py"), REPOSITORY / "random_seeds.pt"]:
        shutil.copy(script, folder)
    source = folder / "src" / "experiments" / "hyperparameters.py"
    text = source.read_text(encoding="utf-8")
    assert "n_checkpoints: int = 5" in text
    source.write_text(
        text.replace("n_checkpoints: int = 5", "n_checkpoints: int = 4"), encoding="utf-8"
    )
    return folder


class TestWhatRuns:
    """The code of the script that is called, wherever it is called from."""

    def test_from_another_clone(self, root: Path, new: Path, clone: Path):
        """In which lie modules of names that others have."""
        for name in ("random", "torch", "socket"):
            (clone / f"{name}.py").write_text("raise ImportError('of the working directory')")
        relative = os.path.relpath(new, clone)
        result = run_script("run_parallel.py", "--root", relative, *ONE_SEED, cwd=clone)
        assert result.code == 0, result
        assert tree(new / "models") == tree(root / "models")
        assert not (clone / "models").exists()

    def test_from_a_folder_with_a_package_src(self, new: Path, tmp_path: Path):
        """Without standard streams, and with what a cluster sets a variable to."""
        folder = tmp_path / "folder"
        (folder / "src").mkdir(parents=True)
        (folder / "src" / "__init__.py").write_text("raise RuntimeError('another src')")
        script = tmp_path / "link.py"
        script.symlink_to(REPOSITORY / "run_parallel.py")
        command = [sys.executable, str(script), "--root", str(new), *map(str, ONE_SEED)]
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command, "gd_and_gc"],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": ""},
            timeout=120,
        )
        assert done.returncode == 0
        assert len([*(new / "tda_scores").rglob("446.pt")]) == 2

    def test_another_clone_before_it(self, clone: Path):
        """By PYTHONPATH, where Python does not put the script's folder first."""
        says = (f"a script of {REPOSITORY} was called", f"the package src of {clone}:")
        for script in ("run_parallel.py", "run_if.py"):
            run_script(script, "--help", PYTHONSAFEPATH="1", PYTHONPATH=str(clone)).check_refused(
                *says
            )


def test_no_place_for_sockets(new: Path, tmp_path: Path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    result = run_script("run_parallel.py", "--root", new, *ONE_SEED, TMPDIR=str(folder))
    result.check_refused("cannot start a process: AF_UNIX path too long", "TMPDIR")


def run_main(folder: Path, body: str, redirected: str = "", **environment: str) -> Result:
    """Run a script that has a body, in a folder, by a shell that redirects its streams."""
    script = folder / "script.py"
    lines = body.strip().splitlines()
    text = "\n    ".join(["def main():", *lines])
    script.write_text(f"from src.cli import run\n\n{text}\n\nrun(main)\n", encoding="utf-8")
    done = subprocess.run(
        ["bash", "-c", f'exec "$@" {redirected}', "bash", sys.executable, str(script)],
        cwd=folder,
        env={**os.environ, **IMPORTABLE, **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    return Result(done.returncode, done.stdout, done.stderr)


COMPUTES = """
import sys
from src.messages import say
with open("made", "w") as file:
    assert file.fileno() > 2, file.fileno()
    for _ in range(3000):
        print("a line of output", flush=True)
        say("a line beside it")
    file.write(repr(sys.stdin.read()))
"""


class TestStreams:
    @pytest.mark.parametrize("redirected", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
    def test_closed(self, tmp_path: Path, redirected: str):
        """No file gets a standard stream's number, and with it what is printed."""
        result = run_main(tmp_path, COMPUTES, redirected)
        assert result.code == 0, result
        assert (tmp_path / "made").read_text() == "''"
        assert result.out.count("output") == (3000 if redirected in ("<&-", "2>&-") else 0)

    @pytest.mark.parametrize(
        ("redirected", "says"),
        [("> >(head -n 1)", "Broken pipe"), (">/dev/full", "No space left on device")],
    )
    def test_output_that_cannot_be_written(self, tmp_path: Path, redirected: str, says: str):
        """The work is done all the same; code and last line say that its lines are not."""
        result = run_main(tmp_path, COMPUTES, redirected)
        assert result.code == OUTPUT_LOST, result
        assert (tmp_path / "made").read_text() == "''"
        assert result.err.splitlines()[-1] == (
            f"some output could not be written ({says}); files are whole"
        )

    def test_errors_that_cannot_be_written(self, tmp_path: Path):
        result = run_main(tmp_path, COMPUTES, "2>/dev/full")
        assert result.code == OUTPUT_LOST
        assert (tmp_path / "made").exists()

    def test_letters_that_the_locale_does_not_have(self, tmp_path: Path):
        says = "import sys\nprint('mean of τ − θ')\nprint('τ', file=sys.stderr)"
        result = run_main(tmp_path, says, **ASCII)
        assert (result.code, result.err) == (0, "\\u03c4\n")
        assert result.out == "mean of \\u03c4 \\u2212 \\u03b8\n"


def test_no_file_is_read_by_the_locale():
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--preview"]
    result = subprocess.run(
        [*command, "--select", "PLW1514", "src", *(f.name for f in REPOSITORY.glob("run_*.py"))],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout


FIGURE = """
from pathlib import Path
from src.plots.style import plt, save_figure
figure, axis = plt.subplots()
for k in range(3):
    axis.plot([0, k], label=str(k))
axis.legend()
axis.set(title="mean of $x_1$", ylabel="-1")
save_figure(figure, Path("made"), "figure")
"""
MATPLOTLIBRC = """
backend: nonsense
text.usetex: True
figure.dpi: 20
figure.autolayout: True
figure.constrained_layout.w_pad: 1
savefig.bbox: tight
savefig.transparent: True
axes.prop_cycle: cycler("color", ["red"])
axes.unicode_minus: False
lines.linewidth: 7
legend.loc: lower left
font.family: serif
"""


@pytest.mark.slow
def test_figures_are_the_same_whatever_a_person_has_set(tmp_path: Path):
    """In matplotlib's files, in the working directory or at home, and in a notebook."""
    trees = []
    for name in ("plain", "here", "at_home"):
        folder = tmp_path / name
        folder.mkdir()
        environment = {}
        if name == "here":
            (folder / "matplotlibrc").write_text(MATPLOTLIBRC)
        elif name == "at_home":
            (folder / "settings").write_bytes(b"# \xfc, which is not UTF-8\n")
            environment = {
                "MATPLOTLIBRC": str(folder / "settings"),
                "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            }
        result = run_main(folder, FIGURE, **environment)
        assert result.code == 0, result
        trees.append(tree(folder / "made"))
    assert len(trees[0]) == 2
    assert trees[1] == trees[0]
    assert trees[2] == trees[0]
