"""All pairs of an experiment, one row each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

from src.analysis.distributions import Distributions
from src.analysis.scores import ExperimentScores
from src.analysis.stats import moments, sign_agreement
from src.storage.files import write_atomically


def pair_table(
    scores: ExperimentScores,
    labels: tuple[np.ndarray, np.ndarray],
    called: str = "label",
    distributions: Distributions | None = None,
) -> pd.DataFrame:
    """Return one row for each pair, train sample by train sample.

    Args:
        scores: The scores.
        labels: Labels (n_train,) of the train and (n_test,) of the test samples, or their values.
        called: What they are called in the columns' names.
        distributions: Of leave-one-out, where it is among the methods.

    Returns:
        A frame with `train_index`, `test_index` (in the full splits), `train_label`, `test_label`,
        and for each method, over its seeds and averaged over all checkpoints, `<method>_mean`,
        `<method>_std` (T − 1), `<method>_p` of the two-sided t-test of mean 0, `<method>_q`, the
        smallest false discovery rate at which Benjamini and Hochberg's procedure over all pairs of
        the method would keep the pair, and `<method>_sign`, the share of seeds whose score has the
        mean's sign. After these come `loo_<name>` of what `distributions` says of each pair.
    """
    train, test = (x.ravel() for x in np.indices((len(scores.train_idx), len(scores.test_idx))))
    columns = {
        "train_index": scores.train_idx[train],
        "test_index": scores.test_idx[test],
        f"train_{called}": labels[0][train],
        f"test_{called}": labels[1][test],
    }
    for method, samples in scores.samples().items():
        mean, std = moments(samples)
        columns |= {
            f"{method}_mean": mean.ravel(),
            f"{method}_std": std.ravel(),
            f"{method}_p": scores.pvalues[method].ravel(),
            f"{method}_q": scores.rates[method].ravel(),
            f"{method}_sign": sign_agreement(samples).ravel(),
        }
    further = {} if distributions is None else distributions.pair_columns
    columns |= {f"loo_{name}": values.ravel() for name, values in further.items()}
    return pd.DataFrame(columns)


def write_pairs(path: Path, frame: pd.DataFrame) -> None:
    """Write all digits of a frame as CSV, atomically; pandas would take ten times as long.

    Raises:
        UserError: The file cannot be written.
    """
    table = pa.Table.from_pandas(frame, preserve_index=False)
    write_atomically(path, lambda file: csv.write_csv(table, file))
