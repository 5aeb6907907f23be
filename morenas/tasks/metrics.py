"""Metrics by name, from scikit-learn and scipy; higher is better for all of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as scores

from morenas.base.errors import InputError, suggest

Values = NDArray[Any]


def _f1(logits: Values, labels: Values) -> float:
    """Of the class 1 where the task has two classes, else the mean over classes."""
    average = "binary" if logits.shape[-1] == 2 else "macro"
    return float(scores.f1_score(labels, logits.argmax(-1), average=average, zero_division=0.0))


def _defined(value: float) -> float:
    """Correlation with a constant is undefined; it predicts nothing, so it counts as none."""
    return 0.0 if math.isnan(value) else float(value)


CLASSIFICATION: dict[str, Callable[[Values, Values], float]] = {
    "accuracy": lambda logits, labels: float(scores.accuracy_score(labels, logits.argmax(-1))),
    "f1": _f1,
    "matthews_correlation": lambda logits, labels: float(scores.matthews_corrcoef(labels, logits.argmax(-1))),
}
REGRESSION: dict[str, Callable[[Values, Values], float]] = {
    "pearson": lambda predictions, labels: _defined(stats.pearsonr(predictions, labels).statistic),
    "spearman": lambda predictions, labels: _defined(stats.spearmanr(predictions, labels).statistic),
}
# Of records, and read off a language model, not off arrays. accuracy: the likeliest of the choices is the right one;
# generated_accuracy: the answer read out of generated text is; log_likelihood: of the output, the mean over its tokens.
CHOICE = ("accuracy", "generated_accuracy", "log_likelihood")
GENERATION = ("generated_accuracy", "log_likelihood")
KNOWN: dict[str, Collection[str]] = {
    "classification": CLASSIFICATION,
    "regression": REGRESSION,
    "choice": CHOICE,
    "generation": GENERATION,
}


def check_metrics(names: Sequence[str], kind: str, select_metric: str | None = None) -> None:
    """Refuse a metric that does not exist or does not fit the kind of task.

    Raises:
        InputError: Naming it and those there are.
    """
    known = KNOWN[kind]
    if select_metric is not None and select_metric not in known:
        raise InputError(
            f"task.select_metric: '{select_metric}' is no metric of a {kind} task{suggest(select_metric, known)}. "
            f"There are: {', '.join(known)}."
        )
    for name in names:
        if name not in known:
            raise InputError(
                f"task.metrics: '{name}' is no metric of a {kind} task{suggest(name, known)}. There are: "
                f"{', '.join(known)}."
            )


def compute_metrics(names: Sequence[str], kind: str, logits: Values, labels: Values) -> dict[str, float]:
    """Score logits ``(examples, num_labels)`` against labels ``(examples,)``."""
    if kind == "regression":
        predictions = np.asarray(logits, dtype=np.float64).reshape(len(labels))
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.ConstantInputWarning)
            return {name: REGRESSION[name](predictions, labels) for name in names}
    return {name: CLASSIFICATION[name](np.asarray(logits), labels) for name in names}
