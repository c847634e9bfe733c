"""Agreement between the methods: correlations over pairs, and distributions over seeds."""

from src.argument_types import number, several_seed_ids
from src.cli import ArgumentParser, run
from src.experiments import Paths
from src.reports.beside import one_thread_each


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments()
    parser.add_argument(
        "--alpha",
        type=number(above=0, below=1),
        default=0.05,
        help="significance level of the t-tests whose answers are compared",
    )
    parser.add_seeds(several_seed_ids)
    parser.add_methods()
    parser.add_allow_missing()
    parser.add_page()
    args = parser.parse_args()
    one_thread_each()

    from src.analysis.fit import Fit
    from src.data.samples import described
    from src.reports.comparison.correlations import report_correlation_comparison
    from src.reports.experiment import AGREEMENT, write_agreement
    from src.reports.overview import Page, check_page
    from src.reports.scores import check_scores, loader

    paths = Paths(args.root)
    experiments = [described(e, paths) for e in args.experiment]
    compares = len(experiments) > 1

    load = loader(
        paths, experiments, args.seed_id, allow_missing=args.allow_missing, methods=args.methods
    )

    check_page(args.output, experiments)
    check_scores(paths, experiments, load)
    if compares:  # first, since experiments without common seeds cannot be
        page = Page.of_comparison(paths, load, experiments, args.output)
        report = page.part("correlations", AGREEMENT, {"alpha": args.alpha})
        report_correlation_comparison(report, load, experiments, args.alpha)
        print(page.close(report))
    for experiment in experiments if args.single_pages or not compares else ():
        scores = load(experiment)
        folder = args.output if args.output and not compares else paths.results(experiment)
        page = Page.of_experiment(folder, scores, Fit.of(paths, scores))
        matrices, path = write_agreement(page, scores, args.alpha)
        print(f"{experiment.name}, over {scores.draws}")
        for (statistic, coefficient), matrix in matrices.items():
            print(f"\n{coefficient} of {statistic}\n{matrix.round(2).to_string()}")
        print(f"\n{path}\n", flush=True)


if __name__ == "__main__":
    run(main)
