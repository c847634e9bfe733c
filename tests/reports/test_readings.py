"""Every sentence of the reports against its table, on scores of all kinds and shapes."""

import inspect
import re
import sys
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from src.analysis.distributions import loo_distributions
from src.analysis.scores import ExperimentScores
from src.ensemble.draws import load_seeds
from src.errors import UserError
from src.experiments import METHODS, PAPER_METHODS, Paths, parse_experiment
from src.plots.style import METHOD_LABELS, pvalue_text
from src.reports import pairs as sheets
from src.reports.comparison.correlations import report_correlation_comparison
from src.reports.comparison.pvalues import report_pvalue_comparison
from src.reports.correlations import report_agreement, report_correlations
from src.reports.distributions import report_distributions
from src.reports.pairs import report_pairs
from src.reports.pvalues import report_pvalues
from src.reports.reading import decimals, kappa_text, percent
from src.reports.scores import load_images
from src.reports.variance import report_draws, report_top_samples
from tests.tools import noise_digest, save_images

pytestmark = pytest.mark.filterwarnings("error")

KINDS = {
    "noise": lambda rng, shape: rng.normal(size=shape),
    "significant": lambda rng, shape: 9 + np.arange(shape[3]) + 0.1 * rng.normal(size=shape),
    # Seeds of either sign in equal parts, so that no test finds a pair.
    "insignificant": lambda rng, shape: (
        (-1.0) ** np.arange(shape[0])[:, None, None, None] * (1 + rng.uniform(size=shape) / 99)
    ),
    "ties": lambda rng, shape: rng.integers(-1, 2, size=shape).astype(float),
    "constant": lambda rng, shape: np.full(shape, 0.1),
    "zero": lambda rng, shape: np.zeros(shape),
}
SHAPES = [(4, 6), (1, 5), (5, 1), (1, 1)]  # (n_train, n_test)
GRID = [
    *((n, methods, kind, (4, 6)) for n in (2, 3, 10) for methods in (1, 3, 5) for kind in KINDS),
    *((n, 2, "noise", (4, 6)) for n in (37, 100)),
    *(
        (3, methods, kind, shape)
        for methods in (3, 5)
        for kind in ("noise", "significant", "zero")
        for shape in SHAPES[1:]
    ),
]
# Of two and ten seeds, some kinds tell little that three do not; of five methods, none but noise
# that three do not.
SELDOM = {"insignificant", "constant", "ties"}


def marks(n_draws, n_methods, kind, shape):
    """Return how a case is marked: slow, or one of those whose figures are drawn."""
    if (n_draws != 3 and kind in SELDOM) or (n_methods == 5 and (kind, shape) != ("noise", (4, 6))):
        return [pytest.mark.slow]
    are_drawn = (n_draws, n_methods) == (3, 3) or (n_methods, kind) == (1, "noise")
    return [pytest.mark.drawn] if are_drawn else []


CASES = [pytest.param(*case, id="-".join(map(str, case)), marks=marks(*case)) for case in GRID]


@pytest.fixture(autouse=True)
def few_are_drawn(request, monkeypatch):
    """Figures take most of the time: only those of tests that are marked `drawn` are."""
    if any(request.node.get_closest_marker(name) for name in ("slow", "drawn")):
        return
    for module in [m for name, m in sys.modules.items() if name.startswith("src.reports.")]:
        for name, what in vars(module).items():
            from_plots = inspect.isfunction(what) and what.__module__.startswith("src.plots.")
            if from_plots and what.__annotations__.get("return") == "Figure":
                monkeypatch.setattr(module, name, lambda *_, **__: None)


class Collected:
    """Stands for a report: keeps what it is given, by kind and name."""

    def __init__(self):
        self.tables, self.readings = {}, {}

    def table(self, name, frame, title, reading, **_):
        self.tables[name] = frame
        self.readings["table", name] = title, reading

    def figure(self, name, figure, title, reading, **_):
        plt.close(figure)
        self.readings["figure", name] = title, reading

    def file(self, name, write, title, reading):
        self.readings["file", name] = title, reading

    def reading(self, kind, name):
        return self.readings[kind, name][1]

    def check_words(self, n_draws, rows=""):
        """Assert what holds of every title, sentence and table."""
        for title, reading in self.readings.values():
            assert title.endswith(f" ({n_draws} seeds{rows})")
            assert reading.endswith(".")
            assert not re.search(r"\b(nan|inf|None|samples of a pair)\b|[`\[\]]", reading), reading
            assert "another ten" not in reading
            assert not re.search(r"\b1 (seeds|checkpoints|pairs)\b", reading), reading
        for frame in self.tables.values():
            draws = frame[[c for c in frame if c == "draws" or c[0] == "draws"][0]]
            assert (draws <= n_draws).all()
            assert n_draws in draws.to_numpy() or frame.empty


def made(kind, n_draws, methods, shape, experiment="cnn2_digits3_10pc", first=0, n_checkpoints=5):
    rng = np.random.default_rng(0)
    scores = {m: KINDS[kind](rng, (n_draws, n_checkpoints, *shape)) for m in methods}
    seeds = load_seeds(first + n_draws)[first:]
    return ExperimentScores(
        parse_experiment(experiment),
        {m: values.astype(np.float32) for m, values in scores.items()},
        dict.fromkeys(methods, seeds),
        np.arange(shape[0]),
        np.arange(shape[1]) + 100,
        {m: {} for m in methods},
        ["torch 2 (cpu)"],
        {
            split: noise_digest(experiment, split, n)
            for split, n in zip(("train", "test"), shape, strict=True)
        },
        {seed: f"of {seed}" for seed in seeds},
        {seed: np.zeros((n_checkpoints, shape[1])) for seed in seeds if "loo" in methods},
        {
            seed: rng.normal(size=(n_checkpoints, shape[1])) if kind == "noise" else floor
            for seed in seeds
            if "loo" in methods
            for floor in [np.zeros((n_checkpoints, shape[1]))]
        },
    )


def of(values, form):
    """What a sentence says of numbers by method."""
    parts = [
        f"{METHOD_LABELS[m]} {'not defined' if np.isnan(v) else form(v)}" for m, v in values.items()
    ]
    return " and ".join(parts) if len(parts) < 3 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def word_of(reading, method):
    """What a sentence like 'rises for LOO and IF; falls for GC' says of a method."""
    label = METHOD_LABELS[method]
    clauses = [clause for clause in re.split(r"[:;.] ", reading) if " for " in clause]
    (word,) = [
        c.rpartition(" for ")[0]
        for c in clauses
        if label in re.split(r", | and ", c.rpartition(" for ")[2].rstrip("."))
    ]
    return word


def check_differences(reading, table, words, n_draws):
    """Assert that a sentence says of each method what the intervals of its one difference bear."""
    if n_draws < 3:
        assert table[["low", "high"]].isna().all(axis=None)
        assert "2 seeds are too few to tell" in reading
        return
    for (method, *_), row in table.iterrows():
        sign = int(row.low > 1e-12) - int(row.high < -1e-12)
        assert word_of(reading, method) == words[sign]


@pytest.mark.parametrize(("n_draws", "n_methods", "kind", "shape"), CASES)
@pytest.mark.parametrize("test", ["ttest", "snr"])
def test_readings_of_pvalues(tmp_path, n_draws, n_methods, kind, shape, test):
    scores = made(kind, n_draws, PAPER_METHODS[:n_methods], shape)
    report = Collected()
    means = report_pvalues(report, scores, test, 0.05)
    report.check_words(n_draws)
    suffix = "" if test == "ttest" else "_snr"
    assert of(means.loc[5], pvalue_text) in report.reading("table", f"mean_pvalues{suffix}")
    fractions = report.tables[f"significant_fraction{suffix}"].drop(columns="draws")
    assert of(fractions.loc[5], percent) in report.reading("table", f"significant_fraction{suffix}")
    check_differences(
        report.reading("figure", f"mean_pvalue_by_checkpoints{suffix}"),
        report.tables[f"mean_pvalue_changes{suffix}"],
        {1: "raises it", -1: "lowers it", 0: "cannot be told"},
        n_draws,
    )
    reading = report.reading("figure", f"pvalue_histograms{suffix}")
    if found := re.search(r"([A-Z]+) has the largest", reading):
        assert METHOD_LABELS[means.loc[5].idxmax()] == found[1]
        assert n_draws > 2
        assert means.loc[5].nlargest(2).diff().iloc[-1] < 0
    else:
        assert ("cannot be told" in reading) == (n_methods > 1)
    table, reading = (
        report.tables[f"significance{suffix}"],
        report.reading("table", f"significance{suffix}"),
    )
    if test == "snr":
        assert of(table["below_alpha"], percent) in reading
        assert "sign-flip" not in reading
        return
    assert of(table["benjamini_hochberg"], percent) in reading
    cannot = 2 / 2**n_draws >= 0.05
    assert ("cannot answer" in reading) == cannot
    assert table["sign_flip"].isna().all() == cannot
    if not cannot:
        assert of(table["kappa"], decimals) in reading


@pytest.mark.parametrize(("n_draws", "n_methods", "kind", "shape"), CASES)
def test_readings_of_draws_and_pairs(tmp_path, monkeypatch, n_draws, n_methods, kind, shape):
    scores = made(kind, n_draws, PAPER_METHODS[:n_methods], shape)
    paths, report = Paths(tmp_path), Collected()
    save_images(paths, "train_10pc", shape[0])
    save_images(paths, "test", shape[1])
    report_draws(report, scores, 0.05)
    components = report.tables["variance_components"]
    shares = of(components["share_between"], percent)
    assert report.reading("figure", "variance_components").startswith(shares)
    needed = report.tables["draws_needed"]["draws_for_50%"].drop("noise")
    said = of(needed, lambda n: f"{n:.0f}" if n < 10_000 else "10000 or more")
    assert said in report.reading("table", "draws_needed")
    final = report.tables["stability"].query("draws == @n_draws and checkpoints == 5")
    halves = final.set_index("method")["rank_correlation"]
    assert of(halves, decimals) in report.reading("figure", "stability")
    report_top_samples(report, scores)
    top = report.tables["top_samples"].query("share == 0.1").set_index("method")
    reading = report.reading("figure", "top_samples")
    assert of(top["jaccard"], decimals) in reading
    assert f"chance gives {decimals(top['by_chance'].iloc[0])}." in reading

    if n_methods > 1 and shape == (4, 6):  # the sheets take long; one of each kind is enough
        monkeypatch.setattr(sheets, "pair_sheet", lambda *_: plt.figure())

    def predict(*_: set[int]) -> dict:
        raise UserError("there are no checkpoints")

    report_pairs(report, scores, scores.pvalues, load_images(paths, scores), predict, 0.05, 100, "")
    report.check_words(n_draws)
    for method, samples in scores.samples().items():
        reading = report.reading("figure", f"{method}_pairs")
        sides = sheets._sides(scores.pvalues[method])
        for name, pairs in zip(("Left", "Right"), sides.values(), strict=True):
            either = sum(samples[:, i, j].min() < 0 < samples[:, i, j].max() for i, j in pairs)
            own = re.search(
                rf"{name}, (\d+) pairs? .*?(\d+) of them with scores of either", reading
            )
            assert own.groups() == (str(len(pairs)), str(either))


@pytest.mark.parametrize(("n_draws", "n_methods", "kind", "shape"), CASES)
def test_readings_of_distributions(n_draws, n_methods, kind, shape):
    scores = made(kind, n_draws, PAPER_METHODS[:n_methods], shape)
    protocol = scores.options["loo"]["protocol"] = "continue" if n_draws == 3 else "retrain"
    report = Collected()
    report_distributions(report, scores, loo_distributions(scores), 0.05)
    report.check_words(n_draws)
    tests, reading = (
        report.tables["distribution_tests"],
        report.reading("table", "distribution_tests"),
    )
    p = scores.pvalues["loo"]
    assert tests.loc["paired", "significant"] == (p < 0.05).mean()
    for column in ("significant", "benjamini_hochberg"):
        assert " and ".join(percent(v) for v in tests[column]) in reading.replace(" of pairs", "")
    assert ("continued the trainings" in reading) == (protocol == "continue")
    mu = report.tables["distributions"].loc["mu"]
    reading = report.reading("table", "distributions")
    for size in (mu["median_size"], mu["median_size_same"]):
        assert (decimals(size) if np.isfinite(size) else "infinite") in reading


@pytest.mark.parametrize(("n_draws", "n_methods", "kind", "shape"), CASES)
def test_readings_of_correlations_and_agreement(n_draws, n_methods, kind, shape):
    scores = made(kind, n_draws, PAPER_METHODS[:n_methods], shape)
    report = Collected()
    report_correlations(report, scores)
    report_agreement(report, scores, 0.05)
    report.check_words(n_draws)
    table = report.tables["correlations"].query("statistic == 'mean' and coefficient == 'spearman'")
    table = table.dropna(subset="value")
    reading = report.reading("figure", "correlations")
    if table.empty:
        assert reading == "No two methods have scores that vary over pairs."
    else:
        signs = [table[f"method_{k}"].map(lambda m: METHODS[m].helpful_sign) for k in "ab"]
        alike = table.value * signs[0] * signs[1]
        for bound in (alike.max(), alike.min()):
            assert f"({decimals(bound)})" in reading
            for row in table[alike == bound].itertuples():
                names = METHOD_LABELS[row.method_a], METHOD_LABELS[row.method_b]
                assert " with ".join(names) in reading
    if n_methods == 1:
        assert "agreement" not in report.tables
        return
    table = report.tables["agreement"].drop(columns="draws")
    closer = table[table["wasserstein"] <= table["wasserstein_same"]]["wasserstein"]
    reading = report.reading("table", "agreement")
    assert (of(closer, decimals) in reading) if len(closer) else ("no estimator" in reading)
    reading = report.reading("figure", "agreement_confusions")
    assert of(table["kappa"], decimals) in reading
    assert of(table["opposite_significant"], percent) in reading
    reading = report.reading("figure", "agreement_distances")
    assert of(table["overlap"], decimals) in reading
    reading = report.reading("figure", "agreement_of_seeds")
    assert of(table["spearman_of_means"], decimals) in reading
    assert of(table["spearman_of_seeds"], decimals) in reading


FAMILY = ("cnn2_digits3_10pc", "cnn2_digits3_20pc", "cnn3_digits3_10pc")
SOURCES = ("cnn2_digits3_10pc_init", "cnn2_digits3_10pc_batch")
COMPARED = [
    *(
        (numbers, (methods, ("gd", "gc")), kind)
        for methods in (("loo", "gd", "gc"), PAPER_METHODS)
        for numbers in ((10, 3, 10), (2, 3, 2), (3, 3, 3))
        for kind in KINDS
    ),
    *(
        ((10, 10, 3), own, "noise")
        for own in ((PAPER_METHODS, PAPER_METHODS), (("loo",), ("loo",)))
    ),
]


@pytest.mark.parametrize(
    ("numbers", "methods", "kind"),
    [
        pytest.param(
            *case,
            id=f"{case[0]}-{len(case[1][0])}-{len(case[1][1])}-{case[2]}",
            marks=[pytest.mark.slow]
            if case[2] != "noise" and (case[0] != (3, 3, 3) or len(case[1][0]) == 5)
            else [pytest.mark.drawn] * (case[0] == (3, 3, 3)),
        )
        for case in COMPARED
    ],
)
def test_readings_of_comparisons(numbers, methods, kind):
    names = (*FAMILY, *SOURCES)
    loaded = {}
    for k, name in enumerate(names):
        own = methods[0] if name != FAMILY[2] else methods[1]
        scores = made(kind, numbers[k % 3], own, (4, 6), name)
        moved = {m: (k + 1) * v + (k % 2) for m, v in scores.scores.items()}
        loaded[scores.experiment] = replace(scores, scores=moved)
    n_draws, shared = min(numbers), [m for m in methods[0] if m in methods[1]]
    report = Collected()
    report_pvalue_comparison(report, lambda e: loaded[e], list(loaded), 0.05)
    report.check_words(n_draws)
    assert (report.tables["variance_components"]["draws"] == n_draws).all()
    remarks = report.reading("table", "mean_pvalues")
    assert ("seeds that all have" in remarks) == (max(numbers) > n_draws)
    lacks = [METHOD_LABELS[m] for m in methods[0] if m not in methods[1]]
    assert all(f"{FAMILY[2]} lacks" in remarks and label in remarks for label in lacks)
    check_differences(
        report.reading("figure", "size_digits3_cnn2_both"),
        report.tables["size_digits3_cnn2_both"],
        {1: "rises", -1: "falls", 0: "cannot be told"},
        n_draws,
    )
    models = report.tables["complexity_digits3_10pc_both"]
    assert list(models.index.unique("method")) == shared
    reading = report.reading("figure", "complexity_digits3_10pc_both")
    # Each row is cnn2's mean p-value less that of cnn3.
    check_differences(reading, models, {1: "cnn2", -1: "cnn3", 0: "cannot be told"}, n_draws)
    assert ("Not all of them have" in reading) == (set(methods[0]) != set(shared))
    sources = report.tables["sources_of_randomness"].droplevel(["task", "model", "n_per_class"])
    reading = report.reading("figure", f"sources_{FAMILY[0]}")
    for source, words in (("init", "initialisation"), ("batch", "batch order")):
        assert f"{words} alone gives {of(sources[f'{source}_to_both'], percent)}" in reading
    if n_draws > 2:
        for method, row in sources.iterrows():
            more = "initialisation" if row.init_to_batch_low > 1 else "cannot be told"
            more = "batch order" if row.init_to_batch_high < 1 else more
            assert word_of(reading.split("gives more")[1], method) == more

    report = Collected()
    report_correlation_comparison(report, lambda e: loaded[e], list(loaded), 0.05)
    report.check_words(n_draws)
    if "agreement" in report.tables:
        kappa = report.tables["agreement"]["kappa"]
        reading = report.reading("table", "agreement")
        if kappa.isna().all():
            assert "not defined" in reading
        elif kappa.max() <= 0:
            assert "more than by chance" in reading
        else:
            assert f"a kappa of {kappa_text(kappa.max())}" in reading
            assert METHOD_LABELS[kappa.idxmax()[-1]] in reading


def test_experiments_without_common_seeds_are_refused():
    loaded = {
        scores.experiment: scores
        for scores in (made("noise", 3, ("gd",), (4, 6), e, 3 * k) for k, e in enumerate(FAMILY))
    }
    report = Collected()
    for compare in (report_pvalue_comparison, report_correlation_comparison):
        with pytest.raises(UserError, match=r"here are 0 \(cnn2_digits3_10pc: seed_id 0-2; "):
            compare(report, lambda e: loaded[e], list(loaded), 0.05)
    assert report.readings == {}


@pytest.mark.drawn
def test_ten_seeds_beside_three_are_compared_by_three():
    """The same scores: ten seeds of them have smaller p-values than three, and no other scores."""
    rng = np.random.default_rng(0)
    whole = made("noise", 10, ("gd",), (20, 30))
    values = 3 + rng.normal(size=(10, 5, 20, 30)).astype(np.float32)
    ten = replace(whole, scores={"gd": values})
    few = made("noise", 3, ("gd",), (20, 30), "cnn2_digits3_20pc")
    three = replace(few, scores={"gd": values[:3]})
    loaded = {ten.experiment: ten, three.experiment: three}
    report = Collected()
    report_pvalue_comparison(report, lambda e: loaded[e], list(loaded), 0.05)
    assert report.tables["size_digits3_cnn2_both"]["difference"].item() == 0
    assert "cannot be told for GD" in report.reading("figure", "size_digits3_cnn2_both")


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (0.9996, "0.999"),
        (0.996, "0.996"),
        (0.05, "0.050"),
        (2e-5, "2.0e-05"),
    ],
)
def test_a_p_value_is_0_or_1_only_if_it_is(p, text):
    assert pvalue_text(p) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0%"), (1.0, "100%"), (0.001, "<1%"), (0.999, ">99%"), (0.5, "50%")]
)
def test_a_share_is_none_or_all_only_if_it_is(share, text):
    assert percent(share) == text


@pytest.mark.drawn
@pytest.mark.parametrize("n_draws", [2, 3])
@pytest.mark.parametrize("n_scored", [1, 4, 60_000])
def test_of_a_sample_of_the_training_samples_all_say_so(n_scored, n_draws):
    report, n_train = Collected(), 60_000
    n_rows = min(n_scored, 6)
    scores = made("noise", n_draws, PAPER_METHODS, (n_rows, 5))
    if n_scored < n_train:
        scores = replace(scores, n_scored_of=n_train)
    report_pvalues(report, scores, "ttest", 0.05)
    report_draws(report, scores, 0.05)
    report_correlations(report, scores)
    report_agreement(report, scores, 0.05)
    report.check_words(
        n_draws, f", {n_scored} of 60,000 training samples" if n_scored < n_train else ""
    )
    by_samples = report.reading("table", "mean_pvalue_intervals")
    assert ("and training samples" in by_samples) == (n_scored < n_train and n_draws > 2)
    assert ("none where a single" in by_samples) == (n_scored == 1 and n_draws > 2)
    limits = report.tables["mean_pvalue_intervals"]
    limits = limits[[column for column in limits if "draws" not in column]]
    assert limits.isna().all(axis=None) == (n_scored == 1 or n_draws == 2)
    reading = report.reading("table", "mean_pvalues")
    assert ("over all pairs is" in reading) == (n_scored == n_train)
    assert "training samples" not in report.reading("table", "correlations")
