"""The same estimators by other libraries: do they agree, and who is faster?

    python benchmarks/libraries.py        (captum, dattri, kronfluence: benchmarks/req.txt)

On one checkpoint of `cnn2_mnist3_10pc` and all its pairs, both sides in one run. Where definitions
coincide, scores have to be equal to rounding; where they do not, `differs` says by what, and the
correlation is what is left to compare. A library that fails is a row that says how.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.ensemble.members import PerSampleLoss, State, n_parameters  # noqa: E402
from src.ensemble.memory import vectors_at_once  # noqa: E402
from src.ensemble.setup import Setup  # noqa: E402
from src.tda.ekfac import draw_targets, ekfac_influence  # noqa: E402
from src.tda.gradient_similarity import gradient_similarity  # noqa: E402
from src.tda.gradients import per_sample_gradients  # noqa: E402
from src.tda.hessian import flatten  # noqa: E402
from src.tda.influence import influence  # noqa: E402
from src.tda.representer import representer_points  # noqa: E402
from src.tda.solvers.lissa import Lissa  # noqa: E402
from src.tda.trak import log_odds, trak  # noqa: E402

WHAT = (
    "The same estimators by other libraries, one checkpoint, all pairs. *differs*: by what the "
    "definitions do. *largest difference*: of scores, relative to the largest, after theirs are "
    "scaled by one factor."
)
REPEATS = 3  # the fastest counts; of what takes longer than LONG seconds the only one
LONG = 10.0
DAMP = 0.1  # EK-FAC's, of a layer's mean eigenvalue
DIM = 512  # TRAK's


@dataclass(frozen=True)
class Case:
    """What both sides are given.

    Attributes:
        setup: The experiment.
        checkpoint: State θ.
        model: The network at θ, of torch's own layers.
    """

    setup: Setup
    checkpoint: State
    model: nn.Module

    @cached_property
    def chunk(self) -> int:
        """How many vectors are held at once; a script finds it once."""
        return vectors_at_once(self.setup.loss, self.checkpoint, self.setup.train)

    @property
    def train(self) -> TensorDataset:
        """The training samples."""
        return TensorDataset(self.setup.train.images.contiguous(), self.setup.train.labels)

    @property
    def test(self) -> TensorDataset:
        """The test samples."""
        return TensorDataset(self.setup.test.images.contiguous(), self.setup.test.labels)


@dataclass(frozen=True)
class Peer:
    """An estimator that a library has, too.

    Attributes:
        method: The method's name here, or what of it is compared.
        library: The package.
        differs: By what the definitions differ; empty: not at all.
        theirs: Returns its scores (n_train, n_test).
        ours: Returns ours.
    """

    method: str
    library: str
    differs: str
    theirs: Callable[[Case], Tensor]
    ours: Callable[[Case], Tensor]


def _dot(case: Case) -> Tensor:
    s = case.setup
    return gradient_similarity(s.loss, case.checkpoint, s.train, s.test, chunk_size=case.chunk)[0]


def _lissa(case: Case) -> Tensor:
    s = case.setup
    return influence(s.loss, case.checkpoint, s.train, s.test, Lissa(), chunk_size=case.chunk)[0]


def _ekfac(case: Case, *, true_labels: bool = False) -> Tensor:
    s = case.setup
    generator = torch.Generator().manual_seed(0)
    drawn = (
        [s.train] if true_labels else draw_targets(s.loss, case.checkpoint, s.train, 1, generator)
    )
    sides = (s.scored_samples, s.test)
    return -ekfac_influence(
        s.loss, case.checkpoint, drawn, *sides, damp=DAMP, chunk_size=case.chunk
    )[0]


def _trak(case: Case) -> Tensor:
    s = case.setup
    odds = PerSampleLoss(s.loss.model, log_odds)
    options = {"dim": DIM, "damp": 1e-3, "seed": 0, "chunk_size": case.chunk}
    return trak(odds, case.checkpoint, s.train, s.test, s.scored, **options)


def _representer(case: Case) -> Tensor:
    s = case.setup
    return representer_points(s.loss, case.checkpoint, s.train, s.test, s.scored, l2=3e-3)[0]


def _captum_tracin(case: Case) -> Tensor:
    from captum.influence import TracInCP

    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        torch.save(case.model.state_dict(), file.name)

        def load(model: nn.Module, path: str) -> float:
            model.load_state_dict(torch.load(path, weights_only=True))
            return 1.0

        tracin = TracInCP(
            case.model,
            case.train,
            [file.name],
            checkpoints_load_func=load,
            loss_fn=nn.CrossEntropyLoss(reduction="sum"),
            batch_size=len(case.train),
            sample_wise_grads_per_batch=True,
        )
        return tracin.influence(case.test.tensors).T


def _dattri_task(case: Case, of: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy):  # noqa: ANN202
    """Return dattri's description of the network, its loss, and the value that is attributed."""
    from dattri.task import AttributionTask

    def mean(params: State, data: tuple[Tensor, Tensor]) -> Tensor:
        return of(functional_call(case.model, params, data[0]), data[1].long())

    shape = case.setup.train.images.shape[1:]

    def single(params: State, data: tuple[Tensor, Tensor]) -> Tensor:
        return mean(params, (data[0].reshape(1, *shape), data[1].reshape(1)))

    return AttributionTask, mean, single


def _loaders(case: Case, batch_size: int = 64) -> tuple[DataLoader, DataLoader]:
    return tuple(DataLoader(side, batch_size=batch_size) for side in (case.train, case.test))


def _dattri_tracin(case: Case) -> Tensor:
    from dattri.algorithm.tracin import TracInAttributor

    task, _, single = _dattri_task(case)
    attributor = TracInAttributor(
        task(single, case.model, case.model.state_dict()), torch.ones(1), normalized_grad=False
    )
    return attributor.attribute(*_loaders(case))


def _dattri_lissa(case: Case) -> Tensor:
    from dattri.algorithm.influence_function import IFAttributorLiSSA

    task, mean, single = _dattri_task(case)
    attributor = IFAttributorLiSSA(
        task(mean, case.model, case.model.state_dict(), target_func=single),
        batch_size=8,
        num_repeat=1,
        recursion_depth=len(case.train) // 8 + 1,
        damping=5e-3,
        scaling=1e4,
    )
    train, test = _loaders(case)
    attributor.cache(train)
    with torch.no_grad():
        return -attributor.attribute(train, test)


def _dattri_ekfac(case: Case) -> Tensor:
    from dattri.algorithm.influence_function import IFAttributorEKFAC

    task, mean, single = _dattri_task(case)
    attributor = IFAttributorEKFAC(
        task(single, case.model, case.model.state_dict(), target_func=mean), damping=DAMP
    )
    train, test = _loaders(case)
    attributor.cache(train)
    return attributor.attribute(train, test)


def _dattri_trak(case: Case) -> Tensor:
    from dattri.algorithm.trak import TRAKAttributor

    task, mean, odds = _dattri_task(case, lambda outputs, labels: log_odds(outputs, labels).mean())

    def probability(params: State, data: tuple[Tensor, Tensor]) -> Tensor:
        return torch.sigmoid(odds(params, data))

    loss, params = PerSampleLoss(case.setup.loss.model, log_odds).at(case.checkpoint)
    of_train = per_sample_gradients(loss, params, *case.setup.train[:]).stack()
    # Theirs are divided by the root of the number of parameters, which cancels from the kernel.
    mean_eigenvalue = flatten(of_train).square().sum().item() / DIM / n_parameters(params)
    attributor = TRAKAttributor(
        task(odds, case.model, case.model.state_dict()),
        probability,
        projector_kwargs={"proj_dim": DIM},
        regularization=1e-3 * mean_eigenvalue,
    )
    train, test = _loaders(case)
    attributor.cache(train)
    with torch.no_grad():
        return attributor.attribute(test)


def _dattri_representer(case: Case) -> Tensor:
    from dattri.algorithm.rps import RPSAttributor

    task, *_ = _dattri_task(case)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    attributor = RPSAttributor(
        task(loss, case.model, case.model.state_dict()), "fc2", l2_strength=3e-3, epoch=3000
    )
    train, test = _loaders(case, batch_size=len(case.test))
    attributor.cache(train)
    return attributor.attribute(train, test)


def _kronfluence_ekfac(case: Case, *, true_labels: bool = False) -> Tensor:
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class Classification(Task):
        def compute_train_loss(self, batch, model, sample=False):  # noqa: ANN001, ANN202
            outputs = model(batch[0])
            if not sample:
                return F.cross_entropy(outputs, batch[1], reduction="sum")
            labels = torch.multinomial(outputs.detach().softmax(1), 1).flatten()
            return F.cross_entropy(outputs, labels, reduction="sum")

        def compute_measurement(self, batch, model):  # noqa: ANN001, ANN202
            return self.compute_train_loss(batch, model)

    task = Classification()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        model = prepare_model(copy.deepcopy(case.model), task)
        analyzer = Analyzer(
            "benchmark", model, task, cpu=True, output_dir=folder, disable_tqdm=True
        )
        analyzer.fit_all_factors(
            "ekfac",
            case.train,
            per_device_batch_size=len(case.train),
            factor_args=FactorArguments(strategy="ekfac", use_empirical_fisher=true_labels),
        )
        analyzer.compute_pairwise_scores(
            "scores",
            "ekfac",
            case.test,
            case.train,
            per_device_query_batch_size=100,
            per_device_train_batch_size=len(case.train),
            score_args=ScoreArguments(damping_factor=None),
        )
        return analyzer.load_pairwise_scores("scores")["all_modules"].T


PEERS = (
    Peer("gd (TracIn, one checkpoint)", "captum", "", _captum_tracin, _dot),
    Peer(
        "gd (TracIn, one checkpoint)",
        "dattri",
        "gradients projected to 512 dimensions",
        _dattri_tracin,
        _dot,
    ),
    Peer("if, LiSSA", "dattri", "random batches", _dattri_lissa, _lissa),
    Peer(
        "ekfac",
        "dattri",
        "linear layers alone; absolute damping; true labels, not drawn ones",
        _dattri_ekfac,
        _ekfac,
    ),
    Peer("ekfac", "kronfluence", "other drawn labels", _kronfluence_ekfac, _ekfac),
    Peer(
        "ekfac, true labels",
        "kronfluence",
        "",
        partial(_kronfluence_ekfac, true_labels=True),
        partial(_ekfac, true_labels=True),
    ),
    Peer("trak", "dattri", "another projection", _dattri_trak, _trak),
    Peer(
        "representer",
        "dattri",
        "no bias; not fitted to stationarity",
        _dattri_representer,
        _representer,
    ),
)


def compare(peer: Peer, case: Case, time_of: Callable[[Callable[[], object]], float]) -> dict:
    """Return a row of the table: times, agreement, or why the library did not run.

    Args:
        peer: What is compared.
        case: What both sides are given.
        time_of: Returns the seconds of a call.
    """
    row = {"method": peer.method, "library": peer.library, "differs": peer.differs or "nothing"}
    try:
        row["library"] += f" {importlib.metadata.version(peer.library)}"
        with _quiet():
            theirs, of_theirs = _timed(lambda: peer.theirs(case), time_of)
    except Exception as error:  # noqa: BLE001 - a peer that fails is a result, not an end
        return {**row, "differs": f"did not run: {type(error).__name__}: {error!s:.150}"}
    _ = case.chunk
    ours, of_ours = _timed(lambda: peer.ours(case), time_of)
    a, b = theirs.detach().double().flatten(), ours.double().flatten()
    slope = (a @ b) / (b @ b)
    off = (a - slope * b).abs().max() / a.abs().max()
    by_test = [
        stats.spearmanr(x, y).statistic
        for x, y in zip(theirs.detach().double().T, ours.double().T, strict=True)
    ]
    return {
        **row,
        "theirs": f"{of_theirs:.3g} s",
        "here": f"{of_ours:.3g} s",
        "theirs / here": f"{of_theirs / of_ours:.1f}",
        "Pearson": f"{stats.pearsonr(a, b).statistic:.4f}",
        "Spearman within a test sample": f"{pd.Series(by_test).mean():.4f}",
        "largest difference": f"{off:.0e}",
    }


def _timed(
    run: Callable[[], Tensor], time_of: Callable[[Callable[[], object]], float]
) -> tuple[Tensor, float]:
    """Return what a call returns and the seconds of the fastest of some calls."""
    found: list[Tensor] = []
    seconds = [time_of(lambda: found.append(run()))]
    while len(seconds) < REPEATS and sum(seconds) < LONG:
        seconds.append(time_of(lambda: found.append(run())))
    return found[-1], min(seconds)


@contextlib.contextmanager
def _quiet():  # noqa: ANN202
    """Let nothing through that a library prints, warns or logs."""
    logging.disable(logging.WARNING)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def table(case: Case, time_of: Callable[[Callable[[], object]], float]) -> pd.DataFrame:
    """Return a row for each estimator that a library has, too."""
    return pd.DataFrame(compare(peer, case, time_of) for peer in PEERS).fillna("")


def main() -> None:
    from benchmarks.bench import Bench, Work

    device = torch.device("cpu")
    work = Work.of("cnn2_mnist3_10pc", device)
    case = Case(work.setup, work.checkpoints[-1], work.plain())
    print(table(case, Bench(device, repeats=1).time).to_markdown(index=False))


if __name__ == "__main__":
    main()
