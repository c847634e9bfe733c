"""How well influence functions predict retraining without a sample, over seeds.

The study of Basu, Pope and Feizi (2021), of iris, of a tenth of MNIST, or of deep networks. What is
there is not computed again; --report draws what is there.
"""

from src.cli import ArgumentParser, run
from src.errors import UserError
from src.experiments import Paths
from src.fragility.studies import SCALES, STUDIES
from src.launch.arguments import add_side_by_side, run_side_by_side


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--study", choices=STUDIES, required=True)
    parser.add_argument(
        "--scale",
        choices=SCALES,
        default="quick",
        help="the published lengths of training, or shorter ones",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="some of the configurations, by the names of their folders",
    )
    parser.add_computing()
    add_side_by_side(parser, "Without this and --workers: one after the other, on --device")
    parser.add_source("of the studies of images: ")
    parser.add_argument(
        "--report", action="store_true", help="compute nothing: write tables and figures"
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="with --report: keep its tables in docs/measured; with --only, those of others stay, "
        "and of images other seeds",
    )
    args = parser.parse_args()
    side_by_side = args.gpus or args.workers
    if side_by_side and (args.device or args.overwrite or args.report):
        raise UserError("--gpus and --workers go without --device, --overwrite and --report")
    if args.record and not args.report:
        raise UserError("--record goes with --report")

    from src.fragility.running import Results
    from src.steps import Skipped, choose_device, seeds

    args.root = args.root.resolve()
    paths, numbered = Paths(args.root), seeds(args.seed_id)
    results = Results(args.study, args.scale, paths, args.only)
    if args.report:
        folder = paths.fragility(args.study, args.scale)
        for line in results.module.report(results.load(numbered), folder):
            print(line, flush=True)
        print(folder)
        if args.record:
            from src.fragility.recording import record_study

            print(record_study(args.study, args.scale, folder, part=args.only is not None))
    elif side_by_side:
        results.check_data(numbered, args.source)
        options = ["--source", str(args.source.resolve())] if args.source else []
        run_side_by_side(results.jobs(numbered, options), args, with_backbone=False)
    else:
        device, skipped = choose_device(args.device), Skipped()
        for line in results.compute(
            numbered, device, args.source, overwrite=args.overwrite, if_held=skipped.if_held
        ):
            print(line, flush=True)
        skipped.exit_if_any()


if __name__ == "__main__":
    run(main)
