"""P-values of the scores over draws: tables, figures and a page, and comparisons of experiments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from src.argument_types import index, number, several_seed_ids
from src.cli import ArgumentParser, run
from src.errors import UserError
from src.experiments import Paths
from src.reports.beside import one_thread_each

if TYPE_CHECKING:
    from src.analysis.scores import ExperimentScores


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments()
    parser.add_argument(
        "--test",
        choices=("ttest", "snr"),
        default="ttest",
        help="Student's t over seeds, or the published code's normal p of mean / std",
    )
    parser.add_argument(
        "--alpha",
        type=number(above=0, below=1),
        default=0.05,
        help="significance level, and false discovery rate",
    )
    parser.add_argument(
        "--test_index",
        type=index,
        metavar="I",
        help="index of a test image in its full split (as in data/subset_indices/<task>/test.txt) "
        "whose proponents and opponents are drawn",
    )
    parser.add_argument(
        "--mislabelled",
        action="store_true",
        help="of experiments _noisy: how well the scores find the flipped labels, by those of the "
        "training samples on themselves (scripts' --self) and on the test samples",
    )
    parser.add_seeds(several_seed_ids)
    parser.add_methods()
    parser.add_allow_missing()
    parser.add_page()
    args = parser.parse_args()
    one_thread_each()

    from functools import partial

    from src.analysis.fit import Fit
    from src.data.samples import described
    from src.ensemble.predictions import load_predictions
    from src.reports.comparison.pvalues import report_pvalue_comparison
    from src.reports.experiment import RELIABILITY, write_reliability
    from src.reports.mislabelled import check_noisy, with_self_influence, write_mislabelled
    from src.reports.overview import Page, check_page
    from src.reports.pairs import words_of_told
    from src.reports.scores import check_scores, load_images, loader

    paths = Paths(args.root)
    experiments = [described(e, paths) for e in args.experiment]
    compares = len(experiments) > 1

    load = loader(
        paths, experiments, args.seed_id, allow_missing=args.allow_missing, methods=args.methods
    )

    if args.mislabelled:
        check_noisy(experiments)
        if compares and not args.single_pages:
            raise UserError("--mislabelled is about single experiments: add --single_pages")

    def of_both(scores: ExperimentScores) -> tuple[ExperimentScores, ExperimentScores]:
        return with_self_influence(paths, scores, args.seed_id, allow_missing=args.allow_missing)

    check_page(args.output, experiments)
    check_scores(
        paths,
        experiments,
        load,
        test_index=args.test_index,
        images=args.single_pages or not compares,
    )
    if args.mislabelled:  # so that errors come before anything is written
        for experiment in experiments:
            of_both(load(experiment))
    if compares:  # first, since experiments without common seeds cannot be
        page = Page.of_comparison(paths, load, experiments, args.output)
        report = page.part("pvalues", RELIABILITY, {"test": args.test, "alpha": args.alpha})
        report_pvalue_comparison(report, load, experiments, args.alpha)
        print(page.close(report))
    for experiment in experiments if args.single_pages or not compares else ():
        scores = load(experiment)
        both = of_both(scores) if args.mislabelled else None
        images = load_images(paths, scores)
        folder = args.output if args.output and not compares else paths.results(experiment)
        page = Page.of_experiment(folder, scores, Fit.of(paths, scores))
        means, path = write_reliability(
            page,
            scores,
            images,
            partial(load_predictions, paths, experiment, scores.checkpoints),
            test=args.test,
            alpha=args.alpha,
            test_index=args.test_index,
        )
        print(f"{experiment.name}, {args.test} over {scores.draws}")
        print(f"\nmean p-value\n{means.round(3).to_string()}\n")
        if args.test_index is not None:
            print(f"{words_of_told(scores, args.test_index, args.alpha)}\n")
        if both is not None:
            table, path = write_mislabelled(page, paths, *both)
            print(f"area under the ROC curve\n{table.round(3).to_string()}\n")
        print(f"{path}\n", flush=True)


if __name__ == "__main__":
    run(main)
