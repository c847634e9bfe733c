"""Fine-tune the ViT ensembles with LoRA: one model per seed, the last five epochs kept."""

from dataclasses import replace

from src.cli import ArgumentParser, run
from src.experiments import TINY_BACKBONE, Paths, paper_vit_experiments
from src.steps import check_samples, choose_device, train_seeds


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments(required=False)
    parser.add_computing()
    parser.add_vit_training()
    args = parser.parse_experiments(paper_vit_experiments)
    if args.backbone == TINY_BACKBONE:
        check_samples(args.experiment, args.root)

        from src.models.pretraining import pretrain_tiny
        from src.storage.locks import wait_for_lock

        paths = Paths(args.root)
        for experiment in {e.task.name: e for e in args.experiment}.values():
            with wait_for_lock(paths.backbone_lock(experiment.task.name)):  # all seeds need it
                pretrain_tiny(
                    experiment,
                    paths,
                    args.source,
                    choose_device(args.device),
                    overwrite=args.overwrite,
                )
    train_seeds(
        args,
        [
            replace(experiment, backbone=args.backbone, random_crop=args.random_crop)
            for experiment in args.experiment
        ],
    )


if __name__ == "__main__":
    run(main)
