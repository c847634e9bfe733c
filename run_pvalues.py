"""P-values of the scores over draws: tables, figures and a page, and comparisons of experiments."""

from src.cli import ArgumentParser, index, number, run
from src.experiments import Paths


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments(nargs="+")
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
    parser.add_allow_missing()
    args = parser.parse_args()

    from src.report import Report
    from src.reports.comparison import report_pvalue_comparison
    from src.reports.pvalues import report_draws, report_pairs, report_pvalues
    from src.results import check_scores, load_scores

    paths = Paths(args.root)
    experiments = list(dict.fromkeys(args.experiment))
    suffix = "" if args.test == "ttest" else f"_{args.test}"
    settings = {"test": args.test, "alpha": args.alpha}
    check_scores(paths, experiments, allow_missing=args.allow_missing, test_index=args.test_index)
    for experiment in experiments:
        scores = load_scores(paths, experiment, allow_missing=args.allow_missing)
        report = Report(
            paths.results(experiment),
            experiment.name,
            f"pvalues{suffix}",
            "Reliability of the scores" + (", by the published formula" if suffix else ""),
            {**settings, **scores.settings()},
        )
        means, p = report_pvalues(report, scores, paths, args.test, args.alpha)
        if args.test == "ttest":
            report_draws(report, scores, args.alpha)
        report_pairs(report, scores, p, paths, args.alpha, args.test_index, suffix)
        print(f"{experiment.name}, {args.test} over {scores.draws}")
        print(f"\nmean p-value\n{means.round(3).to_string()}\n")
        print(f"{report.close()}\n", flush=True)
    if len(experiments) > 1:
        report = Report(
            paths.comparison,
            "Comparison of experiments",
            "pvalues",
            "Reliability of the scores",
            {**settings, "experiments": [experiment.name for experiment in experiments]},
        )
        report_pvalue_comparison(
            report,
            lambda e: load_scores(paths, e, allow_missing=args.allow_missing),
            experiments,
            args.alpha,
        )
        print(report.close())


if __name__ == "__main__":
    run(main)
