"""What a seed drives, and in which order torch's generator is consumed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from src.ensemble import draws
from src.ensemble.draws import (
    Draw,
    load_seeds,
    numbers_of_seeds,
    seed_ids_of,
    shuffled_epochs,
)
from src.ensemble.members import Params
from src.errors import UserError
from src.experiments import MOST_SEEDS, Experiment, parse_experiment
from src.models import build
from tests.tools import call

# By Python's integers: PCG64 (XSL-RR) from the state of numpy's SeedSequence(0), upper 31 bits.
DRAWN = [1367864807, 579362556, 87989972, 35492827, 1746484540, 1960127676]
SEEDS = [446, 724, 571, 296, 854, 968, 245, 374, 829, 470]
N, BATCH, EPOCHS = 50, 32, 3


def draw(experiment: Experiment, seed: int) -> tuple[Params, list[list[list[int]]]]:
    """Return the initial parameters and the batches of each epoch that a seed gives."""
    start = Draw.of(experiment, seed).start(partial(build, experiment))
    return start, [[b.tolist() for b in epoch] for epoch in shuffled_epochs(N, BATCH, EPOCHS)]


def plain_draw(experiment: Experiment, seed: int) -> tuple[Params, list[list[list[int]]]]:
    """Return the same by the plain idiom."""
    torch.manual_seed(seed)
    model = build(experiment)
    loader = DataLoader(list(range(N)), batch_size=BATCH, shuffle=True)
    batches = [[batch.tolist() for batch in loader] for _ in range(EPOCHS)]
    return model.state_dict(), batches


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Say whether two parameter vectors are equal."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_seeds():
    assert load_seeds() == SEEDS


def test_seeds_beyond_the_ten_are_the_same_for_ever():
    assert load_seeds(16) == [*SEEDS, *DRAWN]
    assert load_seeds(100)[-1] == 1565548043


def test_seeds_are_different_draws():
    seeds = load_seeds(MOST_SEEDS)
    assert len(seeds) == MOST_SEEDS
    # torch's generator takes the lower 32 bits of a seed.
    assert len({seed % 2**32 for seed in seeds}) == MOST_SEEDS
    assert all(0 <= seed < 2**31 for seed in seeds)
    for n in (1, 2, 10, 37, 100):
        assert load_seeds(n) == seeds[:n]
    assert numbers_of_seeds() == dict(zip(seeds, range(MOST_SEEDS), strict=True))


def test_a_drawn_seed_that_is_one_of_the_ten_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ten = [*SEEDS[:9], DRAWN[1]]
    torch.save(torch.tensor(ten), tmp_path / "seeds.pt")
    monkeypatch.setattr(draws, "SEEDS_FILE", tmp_path / "seeds.pt")
    assert load_seeds(14) == [*ten, DRAWN[0], *DRAWN[2:5]]


def test_numbers_of_seeds_as_the_option_takes_them():
    assert seed_ids_of(load_seeds(100)) == "0-99"
    assert seed_ids_of([DRAWN[3], 446, DRAWN[2], 571]) == "0,2,12-13"


@pytest.mark.parametrize(
    "wrong", [torch.arange(9), torch.zeros(10, dtype=torch.int64), torch.arange(10.0)]
)
def test_wrong_seeds_are_refused(wrong: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.save(wrong, tmp_path / "seeds.pt")
    monkeypatch.setattr(draws, "SEEDS_FILE", tmp_path / "seeds.pt")
    with pytest.raises(UserError, match="must hold 10 different int64 seeds"):
        load_seeds()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: path.write_bytes(b"no archive"), "is damaged"),
        (
            lambda path: path.write_bytes(draws.SEEDS_FILE.read_bytes()[:500]),
            "is damaged",
        ),
        (lambda path: torch.save({"seeds": SEEDS}, path), "must hold 10 different int64 seeds"),
        (lambda path: torch.save(SEEDS, path), "must hold 10 different int64 seeds"),
        (Path.mkdir, "cannot read"),
    ],
    ids=["empty", "no archive", "cut off", "a dictionary", "a list", "a folder"],
)
def test_seeds_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], object], says: str
):
    path = tmp_path / "random_seeds.pt"
    spoil(path)
    monkeypatch.setattr(draws, "SEEDS_FILE", path)
    (tmp_path / "root").mkdir()
    result = call("run_pvalues", "--root", tmp_path / "root", "--experiment", "cnn2_digits3_10pc")
    result.check_refused(str(path), says, "git checkout random_seeds.pt")
    assert not list((tmp_path / "root").iterdir())


def test_seeds_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def denied(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(torch, "load", denied)
    with pytest.raises(UserError, match=r"cannot read .*random_seeds\.pt: Permission denied"):
        load_seeds()


def test_missing_seeds_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(draws, "SEEDS_FILE", tmp_path / "seeds.pt")
    with pytest.raises(UserError, match=r"seeds\.pt does not exist"):
        load_seeds()


@pytest.mark.parametrize("seed", [*SEEDS, *DRAWN[:2]])
def test_without_suffix_a_draw_is_that_of_the_plain_idiom(seed: int):
    experiment = parse_experiment("cnn2_digits3_10pc")
    start, batches = draw(experiment, seed)
    plain_start, plain_batches = plain_draw(experiment, seed)
    assert same(start, plain_start)
    assert batches == plain_batches


def test_init_drives_the_initialisation_only():
    plain, experiment = (parse_experiment(f"cnn2_digits3_10pc{s}") for s in ("", "_init"))
    _, first_batches = plain_draw(plain, SEEDS[0])
    for seed in SEEDS[:3]:
        start, batches = draw(experiment, seed)
        assert same(start, plain_draw(plain, seed)[0])
        assert batches == first_batches


def test_batch_drives_the_batch_order_only():
    plain, experiment = (parse_experiment(f"cnn2_digits3_10pc{s}") for s in ("", "_batch"))
    first_start, _ = plain_draw(plain, SEEDS[0])
    for seed in SEEDS[:3]:
        start, batches = draw(experiment, seed)
        assert same(start, first_start)
        assert batches == plain_draw(plain, seed)[1]


def test_the_plain_draws_differ_in_both():
    """Or the two tests above would say nothing."""
    plain = parse_experiment("cnn2_digits3_10pc")
    (start_a, batches_a), (start_b, batches_b) = (plain_draw(plain, seed) for seed in SEEDS[:2])
    assert not same(start_a, start_b)
    assert batches_a != batches_b
    assert len({str(epoch) for epoch in batches_a}) == EPOCHS


def test_an_epoch_draws_when_it_begins():
    """As in the plain idiom, where dropout draws from the same generator in between."""
    torch.manual_seed(1)
    loader = DataLoader(list(range(8)), batch_size=8, shuffle=True)
    expected = []
    for _ in range(3):
        for batch in loader:
            expected.append(batch.tolist())
            torch.rand(3)
    torch.manual_seed(1)
    found = []
    for epoch in shuffled_epochs(8, 8, 3):
        for batch in epoch:
            found.append(batch.tolist())
            torch.rand(3)
    assert found == expected
