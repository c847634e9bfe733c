"""The figures of the study of iris: the panels of the published figures 1 and 2, and our own."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from src.plots.fragility import (
    DECAY_COLOURS,
    DECAY_LABELS,
    by_shape,
    label_positions,
    norms_panel,
    panels,
    series,
    spearman_axis,
)
from src.plots.style import legend_above

BASE_WIDTH = 5
_ESTIMATORS = {"exact": "exact", "cg": "CG", "lissa": "LiSSA", "ggn": "Gauss–\nNewton"}
_STEPS = {
    ("ggn", "response"): "influence (Gauss–Newton)\nagainst response",
    ("response", "retrained"): "response against\nretraining",
    ("ggn", "retrained"): "influence (Gauss–Newton)\nagainst retraining",
}
_OF_CONTROL = {
    "control_retrained_raw": "retraining",
    "control_retrained": "retraining\nless control",
    "control_influence": "influence",
}


def _of(frame: pd.DataFrame, **values: object) -> pd.DataFrame:
    """Return the rows whose columns have the given values."""
    for column, value in values.items():
        frame = frame[frame[column] == value]
    return frame


def influence_against_retraining(
    norms: pd.DataFrame, summary: pd.DataFrame, seeds: pd.DataFrame
) -> Figure:
    """Draw the published figure 1: norms of parameter changes, and the fit over depth and width.

    Args:
        norms: `decay`, `seed`, `actual` and `predicted` norms of each sample left out, of the
            network of depth 1 and width 5.
        summary: What `iris_tables.agreement_summary` returns.
        seeds: What `iris_tables.agreements` returns.
    """
    figure, (a, b, c, d) = panels(4, 2)
    for axis, title, with_decay in ((a, "a", True), (b, "b", False)):
        text = ""
        points = norms[(norms["decay"] > 0) == with_decay]
        if len(points):
            norms_panel(axis, points)
            fit = _of(summary, activation="relu", depth=1, width=BASE_WIDTH, of="norms")
            fit = _of(fit, predicted_by="exact", answer="retrained", value="spearman")
            fit = fit[(fit["decay"] > 0) == with_decay].iloc[0]
            text = f": Spearman {fit['mean']:.2f} [{fit['low']:.2f}, {fit['high']:.2f}]"
        axis.set_title(f"({title}) {DECAY_LABELS[with_decay]}{text}", loc="left")
    fit = _of(summary, activation="relu", of="losses", predicted_by="exact", answer="retrained")
    fit = _of(fit, value="spearman")
    single = _of(seeds, activation="relu", of="losses", predicted_by="exact", answer="retrained")
    for axis, title, along, fixed in (
        (c, "c", "depth", {"width": BASE_WIDTH}),
        (d, "d", "width", {"depth": 1}),
    ):
        axis.set_title(f"({title}) loss of the test point", loc="left")
        by_shape(
            axis,
            _of(fit, **fixed),
            _of(single, **fixed),
            "spearman",
            along,
            published=along == "depth",
        )
        spearman_axis(axis)
    legend_above(figure, c)
    sns.despine(figure)
    return figure


def curvature_and_depth(
    summary: pd.DataFrame,
    seeds: pd.DataFrame,
    optima_summary: pd.DataFrame,
    optima: pd.DataFrame,
) -> Figure:
    """Draw the published figure 2: ways to the inverse, the top eigenvalue, norms over depth.

    Args:
        summary: What `iris_tables.agreement_summary` returns.
        seeds: What `iris_tables.agreements` returns.
        optima_summary: What `iris_tables.optima_summary` returns.
        optima: What `iris_tables.optima` returns.
    """
    figure, (a, b, c) = panels(3, 3, 2.4)
    base = {"activation": "relu", "depth": 1, "width": BASE_WIDTH}
    pairs = {"of": "losses", "answer": "retrained"}
    at = {name: x for x, name in enumerate(_ESTIMATORS)}
    for k, decays in enumerate((True, False)):
        fit = _of(summary, **base, **pairs, value="spearman")
        fit = fit[(fit["decay"] > 0) == decays]
        single = _of(seeds, **base, **pairs)
        single = single[((single["decay"] > 0) == decays) & single["predicted_by"].isin(at)]
        fit = fit[fit["predicted_by"].isin(at)]
        if len(fit):
            series(
                a,
                fit.assign(x=fit["predicted_by"].map(at)),
                single.assign(x=single["predicted_by"].map(at)),
                "spearman",
                label=DECAY_LABELS[decays],
                colour=DECAY_COLOURS[decays],
                line="",
                shift=(k - 0.5) * 0.2,
            )
    label_positions(a, _ESTIMATORS.values())
    a.set_title("(a) loss of the test point", loc="left")
    spearman_axis(a)
    shape = {"activation": "relu", "width": BASE_WIDTH}
    by_shape(
        b,
        _of(optima_summary, **shape, value="top_eigenvalue"),
        _of(optima, **shape),
        "top_eigenvalue",
        "depth",
    )
    b.set_title("(b) Hessian", loc="left")
    b.set(ylabel="largest eigenvalue", ylim=(0, None))
    pairs = {"of": "norms", "predicted_by": "exact", "answer": "retrained"}
    by_shape(
        c,
        _of(summary, **shape, **pairs, value="spearman"),
        _of(seeds, **shape, **pairs),
        "spearman",
        "depth",
    )
    c.set_title("(c) norm of parameter change", loc="left")
    spearman_axis(c)
    legend_above(figure, b)
    sns.despine(figure)
    return figure


def why(
    summary: pd.DataFrame,
    seeds: pd.DataFrame,
    optima_summary: pd.DataFrame,
    optima: pd.DataFrame,
) -> Figure:
    """Draw what the published study lacks: the proximal response, the control, the optimum.

    Args:
        summary: What `iris_tables.agreement_summary` returns.
        seeds: What `iris_tables.agreements` returns.
        optima_summary: What `iris_tables.optima_summary` returns.
        optima: What `iris_tables.optima` returns.
    """
    figure, (a, b, c, d) = panels(4, 2, 2.5)
    shape = {"activation": "relu", "width": BASE_WIDTH}
    depths = sorted(_of(summary, **shape)["depth"].unique())
    at = {depth: x for x, depth in enumerate(depths)}
    for axis, title, decays in ((a, "a", True), (b, "b", False)):
        for k, ((predicted_by, answer), label) in enumerate(_STEPS.items()):
            pair = {"of": "losses", "predicted_by": predicted_by, "answer": answer}
            fit = _of(summary, **shape, **pair, value="spearman")
            fit = fit[(fit["decay"] > 0) == decays]
            single = _of(seeds, **shape, **pair)
            single = single[(single["decay"] > 0) == decays]
            series(
                axis,
                fit.assign(x=fit["depth"].map(at)),
                single.assign(x=single["depth"].map(at)),
                "spearman",
                label=label,
                colour=sns.color_palette("colorblind", 10)[2 + k],
                shift=(k - 1) * 0.15,
            )
        label_positions(axis, [f"{depth:g}" for depth in at])
        axis.set_xlabel("depth")
        spearman_axis(axis)
        axis.set_title(f"({title}) loss, {DECAY_LABELS[decays]}", loc="left")
    base = {"activation": "relu", "depth": 1, "width": BASE_WIDTH}
    for k, decays in enumerate((True, False)):
        fit = _of(optima_summary, **base)
        fit = fit[((fit["decay"] > 0) == decays) & fit["value"].isin(_OF_CONTROL)]
        single = _of(optima, **base)
        single = single[(single["decay"] > 0) == decays]
        single = single.melt("seed", list(_OF_CONTROL), "value", "correlation")
        places = {name: x for x, name in enumerate(_OF_CONTROL)}
        if len(fit):
            series(
                c,
                fit.assign(x=fit["value"].map(places)),
                single.assign(x=single["value"].map(places)),
                "correlation",
                label=DECAY_LABELS[decays],
                colour=DECAY_COLOURS[decays],
                line="",
                shift=(k - 0.5) * 0.2,
            )
    label_positions(c, _OF_CONTROL.values())
    c.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    c.set_ylabel("Pearson with the control")
    c.set_title("(c) depth 1, over all samples", loc="left")
    by_shape(
        d,
        _of(optima_summary, **shape, value="log10_drift"),
        _of(optima, **shape),
        "log10_drift",
        "depth",
    )
    d.set_ylabel("log$_{10}$ of the mean gradient's norm")
    d.set_title("(d) how far from an optimum", loc="left")
    legend_above(figure, a)
    if d.get_legend_handles_labels()[1]:
        d.legend(frameon=False)
    sns.despine(figure)
    return figure
