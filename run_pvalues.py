"""P-values of the scores over draws: tables for 1 to 5 checkpoints, and figures."""

from src.cli import ArgumentParser, number, run
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
        "--alpha", type=number(above=0, below=1), default=0.05, help="significance level"
    )
    parser.add_allow_missing()
    args = parser.parse_args()

    from src.data.samples import load_tensors
    from src.plots.pairs import pair_sheet
    from src.plots.pvalues import mean_against_std, mean_pvalue_by_checkpoints, pvalue_histograms
    from src.plots.style import save_figure
    from src.results import load_scores, pvalue_tables, save_pvalues, write_table

    paths = Paths(args.root)
    suffix = "" if args.test == "ttest" else f"_{args.test}"
    for experiment in args.experiment:
        folder = paths.results(experiment)
        scores = load_scores(paths, experiment, allow_missing=args.allow_missing)
        means, fractions, p = pvalue_tables(scores, args.test, args.alpha)
        write_table(means, folder / f"mean_pvalues{suffix}.csv")
        write_table(fractions, folder / f"significant_fraction{suffix}.csv")
        save_pvalues(folder / f"pvalues{suffix}.pt", scores, p, args.test)
        samples = scores.samples()
        figures = {
            "pvalue_histograms": pvalue_histograms(p, args.alpha),
            "mean_pvalue_by_checkpoints": mean_pvalue_by_checkpoints(means),
            "mean_against_std": mean_against_std(samples, args.alpha),
        }
        if "loo" in p:
            train = load_tensors(paths, experiment.task, f"train_{experiment.n_per_class}pc")
            test = load_tensors(paths, experiment.task, "test")
            figures["loo_pairs"] = pair_sheet(
                samples["loo"],
                p["loo"],
                train,
                test,
                method="loo",
                class_names=experiment.task.class_names,
            )
        draws = ", ".join(f"{method} {len(seeds)}" for method, seeds in scores.seeds.items())
        print(f"{experiment.name}, {args.test} over seeds ({draws})")
        print(f"\nmean p-value\n{means.round(3).to_string()}")
        print(f"\nfraction of pairs with p < {args.alpha:g}\n{fractions.round(3).to_string()}\n")
        for name, figure in figures.items():
            for path in save_figure(figure, folder / "figures", f"{name}{suffix}"):
                print(path)
        print(f"{folder}: tables written\n", flush=True)


if __name__ == "__main__":
    run(main)
