"""Train the CNN ensembles: one model per seed, the last five epochs kept as checkpoints."""

from src.cli import ArgumentParser, load_setup, run, seeds
from src.errors import UserError
from src.experiments import paper_cnn_experiments


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments(nargs="+", required=False)
    parser.add_computing()
    args = parser.parse_args()
    experiments = args.experiment or paper_cnn_experiments()
    for experiment in experiments:
        if experiment.training_script != "run_cnn_training.py":
            raise UserError(
                f"{experiment.name} is trained by {experiment.training_script}, not by this script"
            )

    from tqdm import tqdm

    for experiment in experiments:
        setup = load_setup(experiment, args)
        for seed_id, seed in seeds(args.seed_id):
            folder = setup.paths.checkpoint(experiment, seed, 0).parent
            if setup.is_trained(seed, seed_id, overwrite=args.overwrite):
                print(f"{folder}: finished before", flush=True)
                continue
            epochs = tqdm(
                setup.train_seed(seed),
                desc=f"{experiment.name} seed {seed}",
                total=experiment.epochs,
                unit="epoch",
                leave=False, disable=None,
            )
            for state in epochs:
                last = state
            train_accuracy, test_accuracy = setup.accuracies(last.params)
            print(
                f"{folder}: loss {last.loss:.4f}, accuracy on train {train_accuracy:.1%}, "
                f"on test {test_accuracy:.1%}",
                flush=True,
            )


if __name__ == "__main__":
    run(main)
