"""Accuracy beside reliability: do scores that survive retraining predict what subsets do?"""

from src.argument_types import number, several_seed_ids
from src.cli import ArgumentParser, run
from src.experiments import Paths


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments()
    parser.add_argument(
        "--alpha",
        type=number(above=0, below=1),
        default=0.05,
        help="false discovery rate of the pairs that count as reliable",
    )
    parser.add_seeds(several_seed_ids)
    parser.add_methods()
    parser.add_allow_missing()
    args = parser.parse_args()

    from src.analysis.fit import Fit
    from src.data.samples import described
    from src.reports.accuracy import with_subsets, write_accuracy
    from src.reports.overview import Page
    from src.reports.scores import loader
    from src.tda.timing import mean_seconds

    paths = Paths(args.root)
    experiments = [described(e, paths) for e in args.experiment]
    load = loader(
        paths, experiments, args.seed_id, allow_missing=args.allow_missing, methods=args.methods
    )
    for experiment in experiments:  # so that errors come before anything is written
        with_subsets(paths, load(experiment))
    for experiment in experiments:
        scores = load(experiment)
        common, losses = with_subsets(paths, scores)
        seconds = {
            m: mean_seconds(paths, experiment, m, common.common_seeds) for m in common.scores
        }
        page = Page.of_experiment(paths.results(experiment), scores, Fit.of(paths, scores))
        summary, path = write_accuracy(page, common, losses, seconds, args.alpha)
        print(f"{experiment.name}, over {common.draws}")
        print(f"\nreliability and accuracy\n{summary.round(2).to_string()}\n")
        print(f"{path}\n", flush=True)


if __name__ == "__main__":
    run(main)
