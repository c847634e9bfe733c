"""Influence functions: test gradient times inverse Hessian times training gradient."""

from src.argument_types import number, positive_int
from src.cli import ArgumentParser, run
from src.errors import UserError
from src.steps import score_seeds


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments()
    parser.add_computing()
    parser.add_train_samples()
    parser.add_self()
    parser.add_argument(
        "--solver",
        choices=("lissa", "cg", "exact"),
        default="lissa",
        help="how the inverse Hessian is applied: one pass of LiSSA (the published setting), "
        "conjugate gradient, or a dense factorisation for small models",
    )
    parser.add_argument(
        "--curvature",
        choices=("hessian", "ggn"),
        default="hessian",
        help="the Hessian of the mean training loss, or its Gauss-Newton matrix, which has no "
        "negative eigenvalues, so that cg converges",
    )
    parser.add_argument(
        "--damp",
        type=number(at_least=0),
        default=5e-3,
        help="LiSSA's damping, below 1; for cg and exact what is added to the Hessian's diagonal",
    )
    parser.add_argument(
        "--scale",
        type=number(above=0),
        default=1e4,
        help="lissa only: what the Hessian is divided by, more than its largest eigenvalue",
    )
    parser.add_argument(
        "--tolerance",
        type=number(above=0, below=1),
        default=1e-3,
        help="cg only: residual to reach, relative to the gradient's norm",
    )
    parser.add_argument(
        "--max_iterations", type=positive_int, default=200, help="cg only: iterations at most"
    )
    parser.add_chunk_size("gradients solved for")
    args = parser.parse_args()
    used = {"lissa": {"scale"}, "cg": {"tolerance", "max_iterations"}, "exact": set()}[args.solver]
    for option in {"scale", "tolerance", "max_iterations"} - used:
        if getattr(args, option) != parser.get_default(option):
            raise UserError(f"--{option} has no effect with --solver {args.solver}")

    from src.tda.influence import SOLVERS, InfluenceFunction

    options = {option: getattr(args, option) for option in used}
    solver = SOLVERS[args.solver](damp=args.damp, **options)
    score_seeds(args, InfluenceFunction(solver, args.chunk_size, args.curvature))


if __name__ == "__main__":
    run(main)
