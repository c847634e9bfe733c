"""The paper's tables and figures: what each needs, what that costs here, and drawing them.

Those whose scores are there are drawn into results/paper; for the others the commands are said, or
run.
"""

from src.argument_types import experiment_name, number, positive_int, several_seed_ids
from src.cli import ArgumentParser, run
from src.experiments import DEFAULT_BACKBONE, TINY_BACKBONE, Paths
from src.launch.arguments import add_launching, check_launching, run_jobs, vit_options


def main() -> None:
    parser = ArgumentParser(__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--list",
        action="store_true",
        help="draw nothing: print of each what it needs and what of it is there, and what the rest "
        "would take here, by short measurements of every stage",
    )
    what.add_argument(
        "--run", action="store_true", help="compute what is missing first, as run_parallel.py does"
    )
    what.add_argument(
        "--record",
        nargs="+",
        type=experiment_name,
        metavar="E",
        help="draw nothing: write what the scores of experiments come down to into docs/measured",
    )
    what.add_argument(
        "--results",
        action="store_true",
        help="draw nothing: write the tables of RESULTS.md from docs/measured",
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="some of them, by the names that --list prints"
    )
    parser.add_argument(
        "--scale",
        choices=("paper", "quick"),
        default="paper",
        help="the paper's settings, or the same questions on bundled digits and the tiny backbone, "
        "in minutes",
    )
    parser.add_seeds(several_seed_ids, none="0-9, at the scale quick 0-2, and more for draws")
    parser.add_argument(
        "--train_samples",
        type=positive_int,
        metavar="K",
        help="score K training samples of each experiment that has more; none: all, at the scale "
        "quick 10",
    )
    parser.add_argument(
        "--alpha",
        type=number(above=0, below=1),
        default=0.05,
        help="significance level, and false discovery rate",
    )
    parser.add_allow_missing()
    add_launching(parser)
    args = parser.parse_args()
    check_launching(parser, args)

    args.root = args.root.resolve()
    if args.results or args.record:
        from src.paper.recording import record
        from src.paper.results import write_results

        for one in args.record or ():
            at = record(
                one, Paths(args.root), args.seed_id, args.alpha, allow_missing=args.allow_missing
            )
            print(at, flush=True)
        if args.results:
            print(write_results())
        return
    from src.paper.exhibits import exhibits_of
    from src.paper.needed import Asked

    exhibits = exhibits_of(args.only)
    needed = [e for exhibit in exhibits for e in exhibit.needs(args.scale)]
    with_backbone = any(e.has_backbone for e in needed)
    if args.scale == "quick" and with_backbone and args.backbone == DEFAULT_BACKBONE:
        args.backbone = TINY_BACKBONE
    asked = Asked(args.scale, args.seed_id, args.train_samples, vit_options(args, needed))
    if args.list:
        from src.paper.listing import Costs, listing
        from src.steps import choose_device

        costs = Costs(Paths(args.root), choose_device(None), args.backbone)
        for line in listing(exhibits, asked, Paths(args.root), costs):
            print(line, flush=True)
        return
    if args.run:
        from src.paper.needed import jobs_of

        jobs = jobs_of(exhibits, asked, args.root)
        run_jobs(jobs, args, with_backbone=with_backbone)
        if args.slurm:
            return
    from src.paper.page import draw_those_there

    for line in draw_those_there(
        exhibits, asked, Paths(args.root), allow_missing=args.allow_missing, alpha=args.alpha
    ):
        print(line, flush=True)


if __name__ == "__main__":
    run(main)
