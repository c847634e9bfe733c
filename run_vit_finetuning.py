"""Fine-tune the ViT ensembles with LoRA: one model per seed, the last five epochs kept."""

from dataclasses import replace
from pathlib import Path

from src.cli import ArgumentParser, choose_device, run, train_seeds
from src.errors import UserError
from src.experiments import DEFAULT_BACKBONE, TINY_BACKBONE, Paths, paper_vit_experiments


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments(nargs="+", required=False)
    parser.add_computing()
    parser.add_argument(
        "--backbone",
        default=DEFAULT_BACKBONE,
        metavar="NAME_OR_DIR",
        help="pre-trained ViT: a name on the hub, a folder in transformers' format, or "
        f"'{TINY_BACKBONE}', a small one that is pre-trained here, once, on images that the task "
        "does not use, and kept in models/backbones/",
    )
    parser.add_argument(
        "--random_crop",
        action="store_true",
        help="random resized crops instead of resized images, in training and in every evaluation "
        "(published code), so that one model gives another loss each time",
    )
    parser.add_source(f"for --backbone {TINY_BACKBONE}: ")
    args = parser.parse_experiments(paper_vit_experiments)
    if args.source is not None and args.backbone != TINY_BACKBONE:
        raise UserError(f"--source has no effect without --backbone {TINY_BACKBONE}")

    if args.backbone == TINY_BACKBONE:
        from src.locks import wait_for_lock
        from src.models.pretraining import pretrain_tiny

        paths = Paths(args.root)
        for task in {e.task.source: e.task for e in args.experiment}.values():
            with wait_for_lock(paths.backbone_lock(task.source)):  # all seeds need the same one
                pretrain_tiny(task, paths, args.source, choose_device(args.device))
    elif Path(args.backbone).is_dir():
        args.backbone = str(Path(args.backbone).resolve())
    train_seeds(
        args,
        [
            replace(experiment, backbone=args.backbone, random_crop=args.random_crop)
            for experiment in args.experiment
        ],
    )


if __name__ == "__main__":
    run(main)
