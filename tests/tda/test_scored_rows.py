"""A sample of the training samples: the same rows by every method, of models trained on all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from src.data.scored import scored_positions
from src.experiments import PAPER_METHODS, Paths, parse_experiment
from src.launch.jobs import plan
from src.storage.files import load, save
from src.tda.influence import influence
from src.tda.solvers.exact import Exact
from src.tda.solvers.lissa import Lissa
from tests.conftest import DIGITS, Case
from tests.tools import TOLERANCE, call, call_well, relative_error, tree

EXPERIMENT = parse_experiment(DIGITS)
SCRIPTS = ("run_loo", "run_ats", "run_if", "run_gd_and_gc")
N_SCORED = 7


def command(script: str, root: Path, *args: object) -> tuple[object, ...]:
    return (script, "--root", root, "--experiment", DIGITS, *args)


def scores_file(root: Path, method: str, seed: int = 446) -> dict:
    return torch.load(Paths(root).scores(EXPERIMENT, method, seed), weights_only=True)


@pytest.fixture(scope="module")
def sampled(digits_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The samples and seeds of digits_root, and scores of N_SCORED training samples of two."""
    import shutil

    root = tmp_path_factory.mktemp("sampled")
    for folder in ("data", "models"):
        shutil.copytree(digits_root / folder, root / folder)
    for script in SCRIPTS:
        call_well(*command(script, root, "--seed_id", "0,1", "--train_samples", N_SCORED))
    return root


@pytest.mark.parametrize("method", PAPER_METHODS)
def test_rows_are_those_of_all(digits_root: Path, sampled: Path, method: str):
    found, every = scores_file(sampled, method), scores_file(digits_root, method)
    train = torch.load(Paths(sampled).tensors("digits3", "train_10pc"), weights_only=True)
    rows = scored_positions(train["labels"], N_SCORED, "")
    assert train["labels"][rows].bincount().sort().values.tolist() == [2, 2, 3]
    assert found["train_idx"].equal(train["indices"][rows])
    assert found["test_idx"].equal(every["test_idx"])
    assert found["scores"].shape == (5, N_SCORED, len(every["test_idx"]))
    # Of another number of members that are trained together sums are rounded otherwise.
    assert relative_error(found["scores"], every["scores"][:, rows]) < 1e-4
    settings = found["settings"]
    assert (settings["train_samples_scored"], settings["train_samples_all"]) == (N_SCORED, 30)
    assert settings["train_samples"] == every["settings"]["train_samples"]  # trained on all
    assert scores_file(sampled, method, 724)["train_idx"].equal(found["train_idx"])
    assert not any("scored" in key for key in every["settings"])


@pytest.mark.parametrize("solver", [Lissa(), Exact(0.3)], ids=str)
@pytest.mark.parametrize("rows", [[0], [10, 2, 3], list(range(11))], ids=len)
def test_the_hessian_is_of_all_training_samples(case: Case, solver: object, rows: list[int]):
    """On either side of the pair matrix; one alone may be the smaller where all are not."""
    rows = sorted({j % case.n_train for j in rows}, reverse=True)
    given = case.loss(), case.checkpoints[-1], case.train

    def scores(scored: list[int] | None) -> Tensor:
        some = None if scored is None else case.train.at(torch.tensor(scored))
        return influence(*given, case.test, solver, chunk_size=3, scored=some)[0]

    assert relative_error(scores(rows), scores(None)[rows]) < TOLERANCE[case.dtype]


def test_finished_before_and_other_numbers(sampled: Path, copy_of: Callable[[Path], Path]):
    root = copy_of(sampled)
    before = tree(root)
    for script in SCRIPTS:
        given = command(script, root, "--seed_id", 0)
        assert "finished before" in call_well(*given, "--train_samples", N_SCORED)
        again = f"python {script}.py --experiment {DIGITS} --seed_id 0"
        call(*given, "--train_samples", 8).check_refused(
            "train_samples_scored is 7, now 8", again, "--train_samples 8 --device", "--overwrite"
        )
        call(*given).check_refused("train_samples_scored is 7, now None", again)
        assert tree(root) == before


def test_all_by_number_are_all(digits_root: Path):
    before = tree(digits_root)
    for script in SCRIPTS:
        out = call_well(*command(script, digits_root, "--seed_id", 0, "--train_samples", 30))
        assert "finished before" in out
    assert tree(digits_root) == before


@pytest.mark.parametrize("script", [*SCRIPTS, "run_parallel"])
def test_more_than_there_are(digits_root: Path, script: str):
    before = tree(digits_root)
    call(*command(script, digits_root, "--train_samples", 31)).check_refused(
        f"train_samples is 31, and {DIGITS} has 30 training samples to score", "from 1 to 30"
    )
    call(*command(script, digits_root, "cnn2_digits3_20pc", "--train_samples", 31)).check_refused()
    assert tree(digits_root) == before


def test_of_another_sample_is_not_finished(sampled: Path, copy_of: Callable[[Path], Path]):
    root = copy_of(sampled)
    path = Paths(root).scores(EXPERIMENT, "gd", 446)
    content = load(path, "")
    content["settings"]["scored_samples"] = "0" * 64
    save(path, content)
    given = command("run_gd_and_gc", root, "--seed_id", 0, "--train_samples", N_SCORED)
    call(*given).check_refused("scored_samples is 000000000000...")


def test_jobs_score_as_many(digits_root: Path):
    jobs = plan([EXPERIMENT], ["loo", "gd_and_gc"], [(0, 446)], digits_root, [], 7)
    given = {job.step: "--train_samples 7" in " ".join(job.arguments) for job in jobs}
    assert given == {"training": False, "loo": True, "gd_and_gc": True}


def test_methods_of_different_rows_are_not_compared(
    sampled: Path, digits_root: Path, copy_of: Callable[[Path], Path]
):
    root = copy_of(sampled)
    files = {m: [Paths(root).scores(EXPERIMENT, m, s) for s in (446, 724)] for m in PAPER_METHODS}
    for path in files["ats"]:
        content = load(path, "")
        content["scores"] = content["scores"][:, :5].clone()
        content["train_idx"] = content["train_idx"][:5].clone()
        content["settings"] |= {"train_samples_scored": 5, "scored_samples": "5"}
        save(path, content)
    for script in ("run_pvalues", "run_correlations"):
        call(*command(script, root, "--allow_missing")).check_refused(
            f"{files['ats'][0]} has scores of other training samples (5 of 30) than "
            f"{files['loo'][0]} (7 of 30), so that the two cannot be compared",
            f"python run_ats.py --experiment {DIGITS} --seed_id 0 --train_samples 7 --root",
        )
    for method in ("ats", "if", "gd", "gc"):  # of all, which have no setting that says so
        scores = Paths(digits_root).scores(EXPERIMENT, method, 446)
        files[method][0].write_bytes(scores.read_bytes())
    result = call(*command("run_pvalues", root, "--allow_missing"))
    result.check_refused(f"{files['ats'][0]} has scores of other training samples (all 30) than")
    assert not (root / "results").exists()


def test_what_is_missing_is_made_of_as_many(sampled: Path):
    call(*command("run_pvalues", sampled)).check_refused(
        "loo of seed_id 2-", f"python run_loo.py --experiment {DIGITS}", "--train_samples 7 --root"
    )


def test_base_are_the_losses_of_the_checkpoints(sampled: Path):
    from src.data.samples import load_samples
    from src.models import build

    file = scores_file(sampled, "loo")
    assert (file["base"].dtype, file["base"].shape) == (torch.float32, file["floor"].shape)
    _, test, _ = load_samples(Paths(sampled), EXPERIMENT)
    for epoch, found in zip(file["epochs"].tolist(), file["base"], strict=True):
        checkpoint = torch.load(Paths(sampled).checkpoint(EXPERIMENT, 446, epoch))
        model = build(EXPERIMENT).eval()
        model.load_state_dict(checkpoint["model_state_dict"])
        with torch.no_grad():
            losses = torch.nn.functional.cross_entropy(
                model(test.images), test.labels, reduction="none"
            )
        assert relative_error(found, losses) < 1e-4


@pytest.mark.slow
def test_page_of_a_sample(sampled: Path, copy_of: Callable[[Path], Path]):
    root = copy_of(sampled)
    call_well(*command("run_pvalues", root, "--allow_missing"))
    call_well(*command("run_correlations", root, "--allow_missing"))
    page = (Paths(root).results(EXPERIMENT) / "index.html").read_text()
    assert "30 (10 per class); a random sample of 7 of them is scored" in page
    assert page.count("(2 seeds, 7 of 30 training samples)") > 20
    assert "(2 seeds)</h3>" not in page
    assert "over all pairs is" not in page
    rows = (Paths(root).results(EXPERIMENT) / "pairs.csv").read_text().splitlines()
    assert len(rows) == 1 + 7 * 300
