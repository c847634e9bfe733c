"""Fixtures: small cases for all pairs, and roots that the scripts filled."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

# On tensors as small as most here, sharing the work between threads costs more than it saves, and
# on a busy machine a hundred times more. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402
import torch  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from torch import Tensor, nn  # noqa: E402

# The scripts that tests run are not to find the person's data sets by themselves. The processes of
# pytest-xdist, whose environment is this one's, are told by a name that no script reads.
if "TDA_DATASETS" in os.environ:
    os.environ["TDA_DATASETS_OF_TESTS"] = os.environ.pop("TDA_DATASETS")
DATASETS = Path(
    os.environ.get("TDA_DATASETS_OF_TESTS", Path(__file__).parents[2] / "shared" / "datasets")
)
# No test asks the network, and none leaves anything in the person's caches. Set before anything
# imports the library that reads them.
_CACHE = tempfile.TemporaryDirectory(prefix="tests-hf-")
os.environ.update(HF_HOME=_CACHE.name, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")

from src import progress  # noqa: E402
from src.data.samples import Samples  # noqa: E402
from src.ensemble.members import Params, PerSampleLoss, trainable  # noqa: E402
from src.ensemble.optimizer import OptimizerSettings  # noqa: E402
from src.ensemble.procedure import Procedure  # noqa: E402
from src.experiments import REPOSITORY  # noqa: E402
from tests import reference  # noqa: E402
from tests.tools import call_well, samples  # noqa: E402

# Whether a script says how far it is must not depend on how busy the machine is.
progress.TOLD_EVERY = 24 * 3600.0

DIGITS = "cnn2_digits3_10pc"
MNIST = "cnn2_mnist3_10pc"


# Files of few tests that take long: begun last, one would keep one process at work alone.
FIRST = ("test_examples.py", "test_readme.py", "test_study.py", "test_scores.py", "test_vit.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the longest files begin first."""
    items.sort(key=lambda item: item.path.name not in FIRST)


def pytest_unconfigure() -> None:
    """Remove the cache here: a process of pytest-xdist ends without what others do at their end."""
    _CACHE.cleanup()


class TinyNet(nn.Module):
    """A network with every kind of layer that matters, small enough for a dense Hessian.

    Convolutions with padding, stride and without bias; a linear layer with bias and one without.
    """

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 3, 3, padding=1)
        self.conv2 = nn.Conv2d(3, 4, 3, stride=2, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.fc1 = nn.Linear(4, 5)
        self.fc2 = nn.Linear(5, 3, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, 3) of images (B, 1, 8, 8)."""
        x = nn.functional.max_pool2d(nn.functional.gelu(self.conv1(images)), 2)
        x = nn.functional.gelu(self.conv2(x)).flatten(1)
        x = nn.functional.gelu(self.fc1(self.dropout(x)))
        return self.fc2(self.dropout(x))


@dataclass(frozen=True)
class Case:
    """A small experiment: what the naive and the fast versions are both given.

    Attributes:
        n_train: Number of training samples.
        n_test: Number of test samples.
        dtype: Of everything.
        dropout: Probability of the network's dropout.
    """

    n_train: int
    n_test: int
    dtype: torch.dtype = torch.float64
    dropout: float = 0.0

    seed = 446
    n_epochs = 4
    batch_size = 5
    kept_epochs = (1, 3)

    def build(self) -> nn.Module:
        """Return a freshly initialised model."""
        return TinyNet(self.dropout).to(self.dtype)

    @cached_property
    def data(self) -> tuple[reference.Data, reference.Data]:
        """Training and test data: the first digits 0 to 2, in stored order."""
        digits = load_digits(n_class=3)
        images = torch.from_numpy(digits.images)[:, None].to(self.dtype) / 16
        labels = torch.from_numpy(digits.target).long()
        first, second = slice(0, self.n_train), slice(self.n_train, self.n_train + self.n_test)
        return (images[first], labels[first]), (images[second], labels[second])

    @property
    def train(self) -> Samples:
        """The training samples as src takes them."""
        return samples(self.data[0])

    @property
    def test(self) -> Samples:
        """The test samples as src takes them."""
        return samples(self.data[1])

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """All pairs (j, z), row by row."""
        return [(j, z) for j in range(self.n_train) for z in range(self.n_test)]

    def matrix(self, scores: Tensor) -> Tensor:
        """Return scores (..., n_pairs) of all pairs as (..., n_train, n_test)."""
        return scores.unflatten(-1, (self.n_train, self.n_test))

    @cached_property
    def models(self) -> list[nn.Module]:
        """The models at the kept epochs, trained by the plain idiom."""
        epochs = reference.train(
            self.build, self.data[0], self.seed, self.n_epochs, self.batch_size
        )
        return [epochs[e].model for e in self.kept_epochs]

    @cached_property
    def checkpoints(self) -> list[Params]:
        """Their parameters."""
        return [trainable(model) for model in self.models]

    def loss(self, *, together: bool = False) -> PerSampleLoss:
        """Return the per-sample loss as src takes it."""
        return PerSampleLoss(self.build(), together=together)

    @property
    def optimizer(self) -> OptimizerSettings:
        """The optimiser's settings."""
        return OptimizerSettings(reference.LEARNING_RATE, reference.WEIGHT_DECAY)

    def procedure(self, loss: PerSampleLoss | None = None) -> Procedure:
        """Return the training procedure as src takes it."""
        loss = loss or self.loss()
        return Procedure(loss, self.train, self.optimizer, self.batch_size, self.n_epochs)

    def __str__(self) -> str:
        """Return the name of the case in a report."""
        return f"{self.n_train}x{self.n_test}-{str(self.dtype).removeprefix('torch.')}"


# LiSSA's batches of 8: several with a remainder, on both sides of the pair matrix, and one sample.
CASES = [
    Case(11, 13),
    Case(19, 7),
    Case(1, 4),
    Case(4, 1),
    Case(11, 13, torch.float32),
]
# One, one that does not divide, one larger than the set.
CHUNK_SIZES = [1, 3, 100]


@pytest.fixture(scope="session", params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    """A small case of which all pairs are compared."""
    return request.param


@pytest.fixture(params=CHUNK_SIZES, ids="chunk{}".format)
def chunk_size(request: pytest.FixtureRequest) -> int:
    """How much is computed at once."""
    return request.param


@pytest.fixture(params=[False, True], ids=["loop", "vmap"])
def together(request: pytest.FixtureRequest) -> bool:
    """Whether members are computed as one batch, as on a GPU, or one after another."""
    return request.param


@pytest.fixture(autouse=True)
def _same_random_state() -> Iterator[None]:
    """Start every test from the same state, and leave later tests unaffected."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _left_empty(figure: object, folder: Path, name: str, *_: object) -> list[Path]:
    """Stand for `save_figure`: drawing takes most of a report's time."""
    from matplotlib import pyplot

    pyplot.close(figure)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.pdf", folder / f"{name}.png"]
    for path in paths:
        path.touch()
    return paths


@contextlib.contextmanager
def _figures(config: pytest.Config, *, are_drawn: bool) -> Iterator[None]:
    """Have reports leave the files of their figures empty, which are made all the same, or not.

    That is in what runs in this process, and in those that are forked from it. With the slow tests
    all are drawn.
    """
    from src.plots.style import save_figure

    are_drawn = are_drawn or config.option.markexpr != "not slow"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.reports.report.save_figure", save_figure if are_drawn else _left_empty)
        yield


@pytest.fixture(autouse=True, scope="module")
def _undrawn_by_fixtures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave the figures of modules' fixtures empty, but of those that ask for `drawn`."""
    with _figures(request.config, are_drawn=False):
        yield


@pytest.fixture(scope="module")
def drawn(request: pytest.FixtureRequest) -> Iterator[None]:
    """Draw the figures of a fixture of a module."""
    with _figures(request.config, are_drawn=True):
        yield


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave figures empty, but in tests of them, which are marked `drawn`."""
    marked = request.node.get_closest_marker("drawn") is not None
    with _figures(request.config, are_drawn=marked):
        yield


def compute_all(root: Path, experiment: str) -> None:
    """Train seed 0 and compute the scores of the five methods."""
    for script in ("run_cnn_training", "run_loo", "run_ats", "run_if", "run_gd_and_gc"):
        call_well(script, "--root", root, "--experiment", experiment, "--seed_id", 0)


@pytest.fixture(scope="session")
def digits_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with digits3, three trained seeds and seed 0's scores. Not to be written to."""
    root = tmp_path_factory.mktemp("digits")
    call_well("run_subset_generation", "--root", root, "--task", "digits3")
    call_well("run_cnn_training", "--root", root, "--experiment", DIGITS, "--seed_id", "0-2")
    compute_all(root, DIGITS)
    return root


@pytest.fixture(scope="session")
def datasets_folder() -> Path:
    """The folder with clones of the hub's data sets."""
    if not (DATASETS / "ylecun" / "mnist").is_dir():
        pytest.skip(f"no data sets at {DATASETS}; name another folder by TDA_DATASETS")
    return DATASETS


@pytest.fixture(scope="session")
def mnist_root(tmp_path_factory: pytest.TempPathFactory, datasets_folder: Path) -> Path:
    """A root with MNIST, seed 0 of cnn2_mnist3_10pc and its scores. Not to be written to."""
    root = tmp_path_factory.mktemp("mnist")
    call_well(
        "run_subset_generation", "--root", root, "--task", "mnist3", "--source", datasets_folder
    )
    compute_all(root, MNIST)
    return root


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """Returns a copy of a root, which a test may write to."""
    import shutil

    return lambda root: Path(shutil.copytree(root, tmp_path / "copy"))


def committed_indices(task: str) -> Path:
    """Return the folder of the index files that the repository carries."""
    return REPOSITORY / "data" / "subset_indices" / task
