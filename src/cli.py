"""What the run_* scripts share of arguments, and errors in one line.

Nothing heavy is imported before the arguments are known to be right, so that `--help` and wrong
arguments are answered at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from src import streams
from src.argument_types import experiment_name, positive_int, seed_ids
from src.errors import UserError
from src.experiments import (
    DEFAULT_BACKBONE,
    METHODS,
    N_SEEDS,
    PAPER_METHODS,
    REPOSITORY,
    SOURCE_VARIABLE,
    TINY_BACKBONE,
    Experiment,
)
from src.experiments.definitions import VARIABLE as DEFINE_VARIABLE
from src.experiments.definitions import files_of_environment, load_definitions

# Exit codes of scripts that went well, but
OTHERS_AT_WORK = 3  # another process still computes some of it;
OUTPUT_LOST = 120  # not all that was printed could be written. Python's own code for it.


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Tells every default, except for options whose help says what none means."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class ArgumentParser(argparse.ArgumentParser):
    """A parser whose help tells every default, and whose errors are one line."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, formatter_class=_HelpFormatter)
        self.add_argument(
            "--root",
            type=Path,
            default=REPOSITORY,
            metavar="DIR",
            help="folder of data/, models/, tda_scores/ and results/",
        )
        self.add_argument(
            "--define",
            type=Path,
            action="append",
            metavar="FILE",
            default=None,
            help="Python file that registers models and tasks of one's own (src.experiments: "
            "register_model, register_task); may be given several times, also by the environment "
            f"variable {DEFINE_VARIABLE}",
        )

    def error(self, message: str) -> None:
        """Print the error as one line and exit with code 2."""
        print(f"error: {message} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(2)

    def add_experiments(self, *, required: bool = True) -> None:
        """Add --experiment, which takes several."""
        self.add_argument(
            "--experiment",
            type=experiment_name,
            nargs="+",
            required=required,
            metavar="E",
            default=argparse.SUPPRESS if required else None,
            help="<model>_<task>_<n>pc[_noisy][_init|_batch], for example cnn2_mnist3_10pc"
            + ("" if required else "; none: every one of the paper that this script trains"),
        )

    def parse_experiments(self, of_paper: Callable[[], list[Experiment]]) -> argparse.Namespace:
        """Parse the arguments of a training script; no --experiment: all that `of_paper` gives.

        An experiment of a model that the script does not train is an error.
        """
        args = self.parse_args()
        args.experiment = args.experiment or of_paper()
        script = of_paper()[0].training_script
        for experiment in args.experiment:
            if experiment.training_script != script:
                self.error(f"{experiment.name} is trained by {experiment.training_script}")
        return args

    def add_seeds(
        self, parse: Callable[[str], list[int]] = seed_ids, *, none: str | None = None
    ) -> None:
        """Add --seed_id, which takes several: the ten by default, or what `none` says in words."""
        self.add_argument(
            "--seed_id",
            type=parse,
            metavar="K",
            default=f"0-{N_SEEDS - 1}" if none is None else None,
            help="numbers of seeds, for example 3 or 0,2,5-9: those below 10 are in "
            "random_seeds.pt, and others are drawn by a fixed generator (src/ensemble/draws.py)"
            + (f"; none: {none}" if none else ""),
        )

    def add_computing(self) -> None:
        """Add --seed_id, --device and --overwrite."""
        self.add_seeds()
        self.add_argument(
            "--device", help="cpu, cuda, cuda:N or mps; none: cuda if there is one, else cpu"
        )
        self.add_argument(
            "--overwrite", action="store_true", help="compute files again that are there"
        )

    def add_train_samples(self) -> None:
        """Add --train_samples."""
        self.add_argument(
            "--train_samples",
            type=positive_int,
            metavar="K",
            help="score a random sample of K training samples, as balanced over classes as K "
            "allows, the same for all methods and seeds; training is on all. None: all, or of an "
            "experiment on all samples of a source those of its index file",
        )

    def add_self(self) -> None:
        """Add --self."""
        self.add_argument(
            "--self",
            action="store_true",
            dest="on_itself",
            help="score training samples on themselves, not the test samples, as self_<seed>.pt",
        )

    def add_methods(self) -> None:
        """Add --methods."""
        self.add_argument(
            "--methods",
            nargs="+",
            choices=METHODS,
            metavar="M",
            help=f"of {', '.join(METHODS)}; none: {', '.join(PAPER_METHODS)}, and of the others "
            "those whose files of all seeds are there",
        )

    def add_allow_missing(self) -> None:
        """Add --allow_missing."""
        self.add_argument(
            "--allow_missing",
            action="store_true",
            help="go on with the seeds that are there, two at least, instead of listing what is "
            "missing",
        )

    def add_page(self) -> None:
        """Add --output and --single_pages."""
        self.add_argument(
            "--output",
            type=Path,
            metavar="DIR",
            help="folder of the page, a new or empty one or one with this page; none: "
            "results/<experiment>, or of several results/comparison/<E1+E2+...> below the root",
        )
        self.add_argument(
            "--single_pages",
            action="store_true",
            help="when several experiments are compared, also make the page of each",
        )

    def add_vit_training(self) -> None:
        """Add --backbone, --random_crop and --source; `vit_options` returns what was given."""
        self.add_argument(
            "--backbone",
            default=DEFAULT_BACKBONE,
            metavar="NAME_OR_DIR",
            help="pre-trained ViT: a name on the hub, a folder in transformers' format, or "
            f"'{TINY_BACKBONE}', a small one that is pre-trained here, once, on images that the "
            "task does not use, and kept in models/backbones/",
        )
        self.add_argument(
            "--random_crop",
            action="store_true",
            help="random resized crops instead of resized images, in training and in every "
            "evaluation (published code), so that one model gives another loss each time",
        )
        self.add_source(f"for --backbone {TINY_BACKBONE}: ")

    def parse_args(self, *given: Any) -> argparse.Namespace:
        """Parse the arguments; what a ViT's training takes is checked and made absolute.

        Definitions are loaded before, so that what they register may be named. An experiment that
        is given twice counts once.
        """
        first = argparse.ArgumentParser(add_help=False, exit_on_error=False)
        first.add_argument("--define", type=Path, action="append", default=[])
        with contextlib.suppress(argparse.ArgumentError):  # which is told below, with all others
            known, _ = first.parse_known_args(*given)
            load_definitions([*files_of_environment(), *known.define])
        args = super().parse_args(*given)
        if getattr(args, "experiment", None):
            args.experiment = list(dict.fromkeys(args.experiment))
        if "backbone" in args:
            if args.source is not None and args.backbone != TINY_BACKBONE:
                raise UserError(f"--source has no effect without --backbone {TINY_BACKBONE}")
            if args.backbone != TINY_BACKBONE and Path(args.backbone).is_dir():
                args.backbone = str(Path(args.backbone).resolve())
        return args

    def add_source(self, purpose: str = "") -> None:
        """Add --source; what the environment names instead is made absolute.

        Jobs find it in their environment, and are started from another folder.
        """
        if os.environ.get(SOURCE_VARIABLE):
            os.environ[SOURCE_VARIABLE] = str(Path(os.environ[SOURCE_VARIABLE]).absolute())
        self.add_argument(
            "--source",
            type=Path,
            metavar="DIR",
            help=f"{purpose}folder with clones of the hub's data set repositories (ylecun/mnist, "
            "uoft-cs/cifar10); none: the environment variable TDA_DATASETS, else the hub",
        )

    def add_chunk_size(self, of_what: str) -> None:
        """Add --chunk_size."""
        self.add_argument(
            "--chunk_size",
            type=positive_int,
            metavar="N",
            help=f"{of_what} at once, which changes memory, time and how sums are rounded (a score "
            "by some 1e-6 of the largest), and with random crops the crops; none: chosen from the "
            "free memory",
        )


def run(main: Callable[[], None]) -> None:
    """Run a script; a UserError becomes one line on standard error and exit code 2.

    SIGTERM ends it as Ctrl-C does: with finished pieces saved and nothing half-written. A script
    whose output cannot be written computes all the same, and ends with OUTPUT_LOST.
    """
    outputs = streams.make_lasting()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # A person's own settings for figures, and a notebook's, can make matplotlib's import fail.
    os.environ.update(MPLBACKEND="agg", MATPLOTLIBRC=os.devnull)
    try:
        check_code(Path(main.__globals__["__file__"]).resolve().parent)
        main()
        sys.stdout.flush()
        if errors := [output.error for output in outputs if output.error]:
            reason = errors[0].strerror
            print(f"some output could not be written ({reason}); files are whole", file=sys.stderr)
            sys.exit(OUTPUT_LOST)
    except UserError as error:
        message = " ".join(str(error).split())
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)
    except PermissionError as error:  # of a file whose reader expects none
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        from src.ensemble.memory import ADVICE, is_out_of_memory

        if not is_out_of_memory(error):
            raise
        print(f"error: out of memory, with nothing left to halve: {ADVICE}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; what is finished stays, the same command goes on", file=sys.stderr)
        sys.exit(130)


def check_code(folder: Path) -> None:
    """Check that this code is that of the folder whose script was called, if that has any.

    Raises:
        UserError: Python found the package src elsewhere first.
    """
    if folder != REPOSITORY and (folder / "src").is_dir():
        raise UserError(
            f"a script of {folder} was called, but Python found the package src of {REPOSITORY}: "
            "take that out of PYTHONPATH, or call the script from another folder"
        )


def end_at_hangup() -> None:
    """Take the end of a terminal session as SIGTERM is taken, except under nohup."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
