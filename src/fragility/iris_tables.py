"""The tables of the study of iris, from what was measured of each configuration and seed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from src.fragility import iris
from src.fragility.compare import summary, with_raw

ESTIMATORS = ("exact", "cg", "lissa", "ggn")
# Predicted by what, and what of: the proximal response is an answer and, to retraining, a question.
PAIRS = [
    *((one, "retrained") for one in ESTIMATORS),
    ("ggn", "response"),
    ("response", "retrained"),
]
STATISTICS = ["pearson", "spearman", "slope", "same_sign"]
# Spearman's coefficient of the exact influence on the loss at depth 1 and width 5, by decay.
PUBLISHED = {5e-3: 0.97, 0.0: 0.508}
OF_OPTIMUM = [
    "gradient_norm",
    "drift",
    "loss",
    "test",
    "test_loss",
    "top_eigenvalue",
    "smallest_eigenvalue",
    "control_loss",
    "control_norm",
]
OF_CONTROL = ["control_retrained_raw", "control_retrained", "control_influence"]
CONFIGURATION = ["configuration", "activation", "depth", "width", "decay"]


def _described(results: dict) -> list[tuple[dict, dict]]:
    """Return of every configuration and seed, in the study's order, what it is and its results."""
    known = {c.name: c for c in iris.configurations("paper")}
    return [
        (
            {
                "configuration": name,
                **{key: getattr(known[name], key) for key in CONFIGURATION[1:]},
                "seed": seed,
            },
            results[name][seed],
        )
        for name in known
        if name in results
        for seed in results[name]
    ]


def agreements(results: dict) -> pd.DataFrame:
    """Return how well each estimator predicts each answer, a row for each pair and seed.

    Args:
        results: By the configuration's name and the seed, see `iris_measurement.measured`.

    Returns:
        The configuration, `seed`, `of` ("losses" or "norms"), `predicted_by`, `answer`, and
        STATISTICS, also with `_raw` behind them: without the control's change subtracted.
    """
    rows = []
    for what, found in _described(results):
        for of in ("losses", "norms"):
            values = {name: value.numpy() for name, value in found[of].items()}
            for predicted_by, answer in PAIRS:
                if predicted_by not in values:
                    continue
                raw = values.get(f"{answer}_raw", values[answer])
                fit = with_raw(values[predicted_by], values[answer], raw)
                rows.append(
                    {**what, "of": of, "predicted_by": predicted_by, "answer": answer, **fit}
                )
    return pd.DataFrame(rows)


def optima(results: dict) -> pd.DataFrame:
    """Return what is known of each optimum, a row for each configuration and seed.

    Beside OF_OPTIMUM that is the largest gradient norm at a proximal response, and means over the
    samples left out of correlations over all samples z: of what leaving one out, and what its
    influence, changes L(z) by, with what the control changes it by.
    """
    return pd.DataFrame(
        [
            {
                **what,
                **{name: found[name] for name in OF_OPTIMUM},
                "log10_drift": np.log10(found["drift"]),
                "response_gradient": found["response_gradients"].max().item(),
                **{name: pd.Series(found[name].numpy()).mean() for name in OF_CONTROL},
            }
            for what, found in _described(results)
        ]
    )


def agreement_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return `agreements` over seeds, with the published value where there is one."""
    values = [*STATISTICS, *(f"{name}_raw" for name in STATISTICS)]
    found = summary(rows, [*CONFIGURATION, "of", "predicted_by", "answer"], values)
    is_published = (
        (found["activation"] == "relu")
        & (found["depth"] == 1)
        & (found["width"] == iris.WIDTH)
        & (found["of"] == "losses")
        & (found["predicted_by"] == "exact")
        & (found["value"] == "spearman")
    )
    found["published"] = found["decay"].map(PUBLISHED).where(is_published)
    return found


def optima_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return `optima` over seeds."""
    others = ["log10_drift", "response_gradient", *OF_CONTROL]
    values = [name for name in (*OF_OPTIMUM, *others) if name != "test"]
    return summary(rows, CONFIGURATION, values)


def norms_of_base(results: dict) -> pd.DataFrame:
    """Return the norms of parameter changes of depth 1 and width 5, a row for each sample and seed.

    Returns:
        `decay`, `seed`, `actual` (by retraining, less the control's change) and `predicted` (by
        exact influence).
    """
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "decay": what["decay"],
                    "seed": what["seed"],
                    "actual": found["norms"]["retrained"].numpy(),
                    "predicted": found["norms"]["exact"].numpy(),
                }
            )
            for what, found in _described(results)
            if (what["activation"], what["depth"], what["width"]) == iris.BASE
            and "exact" in found["norms"]
        ]
        or [pd.DataFrame(columns=["decay", "seed", "actual", "predicted"])]
    )
