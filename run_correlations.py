"""Correlations between the methods' means, standard deviations and p-values over pairs."""

from src.cli import ArgumentParser, run
from src.experiments import Paths


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments(nargs="+")
    parser.add_allow_missing()
    args = parser.parse_args()

    from src.plots.correlations import correlation_heatmaps
    from src.plots.style import save_figure
    from src.results import correlation_matrices, correlation_table, load_scores, write_table

    paths = Paths(args.root)
    for experiment in args.experiment:
        folder = paths.results(experiment)
        scores = load_scores(paths, experiment, allow_missing=args.allow_missing)
        matrices = correlation_matrices(scores)
        write_table(correlation_table(matrices), folder / "correlations.csv", index=False)
        draws = ", ".join(f"{method} {len(seeds)}" for method, seeds in scores.seeds.items())
        print(f"{experiment.name}, over seeds ({draws})")
        for (statistic, coefficient), matrix in matrices.items():
            print(f"\n{coefficient} of {statistic}\n{matrix.round(2).to_string()}")
        figure = correlation_heatmaps(matrices)
        print()
        for path in save_figure(figure, folder / "figures", "correlations"):
            print(path)
        print(f"{folder / 'correlations.csv'}\n", flush=True)


if __name__ == "__main__":
    run(main)
