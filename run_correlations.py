"""Agreement between the methods: correlations over pairs, and distributions over seeds."""

from src.cli import ArgumentParser, number, run
from src.experiments import Paths


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments(nargs="+")
    parser.add_argument(
        "--alpha",
        type=number(above=0, below=1),
        default=0.05,
        help="significance level of the t-tests whose answers are compared",
    )
    parser.add_allow_missing()
    args = parser.parse_args()

    from src.report import Report
    from src.reports.comparison import report_correlation_comparison
    from src.reports.correlations import report_agreement, report_correlations
    from src.results import check_scores, load_scores

    paths = Paths(args.root)
    experiments = list(dict.fromkeys(args.experiment))
    check_scores(paths, experiments, allow_missing=args.allow_missing, test_index=None)
    for experiment in experiments:
        scores = load_scores(paths, experiment, allow_missing=args.allow_missing)
        report = Report(
            paths.results(experiment),
            experiment.name,
            "correlations",
            "Agreement between methods",
            {"alpha": args.alpha, **scores.settings()},
        )
        matrices = report_correlations(report, scores)
        report_agreement(report, scores, args.alpha)
        print(f"{experiment.name}, over {scores.draws}")
        for (statistic, coefficient), matrix in matrices.items():
            print(f"\n{coefficient} of {statistic}\n{matrix.round(2).to_string()}")
        print(f"\n{report.close()}\n", flush=True)
    if len(experiments) > 1:
        report = Report(
            paths.comparison,
            "Comparison of experiments",
            "correlations",
            "Agreement between methods",
            {"alpha": args.alpha, "experiments": [e.name for e in experiments]},
        )
        report_correlation_comparison(
            report,
            lambda e: load_scores(paths, e, allow_missing=args.allow_missing),
            experiments,
            args.alpha,
        )
        print(report.close())


if __name__ == "__main__":
    run(main)
