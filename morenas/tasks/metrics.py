"""Metrics: scores of predictions, from scikit-learn and scipy; higher is better for all of them.

A metric is a function, and ``fits`` says for which kinds of task. ``register("metric", …)`` brings in another one. Of a
classification it takes logits ``(examples, classes)`` and labels ``(examples,)``; of a regression predictions and
labels, both ``(examples,)``; of records generated texts and the answers that were expected, one each a record. The
libraries are imported when a metric is computed, so that names are checked quickly.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from morenas.base.errors import InputError, RunError, suggest
from morenas.base.kinds import KINDS
from morenas.base.registry import registry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[Any]

Metric = TypeVar("Metric", bound=Callable[..., Any])


def fits(*kinds: str) -> Callable[[Metric], Metric]:
    """Say for which kinds of task a metric is: "classification", "regression", "choice", "generation"."""

    def mark(metric: Metric) -> Metric:
        metric.kinds = kinds  # type: ignore[attr-defined]
        return metric

    return mark


@fits("classification", "choice")
def accuracy(logits: Values, labels: Values) -> float:
    """Share of the examples whose class is right; of a choice, whose likeliest choice is (``LanguageScorer``)."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, logits.argmax(-1)))


@fits("classification")
def f1(logits: Values, labels: Values) -> float:
    """Of the class 1 where the task has two classes, else the mean over classes."""
    from sklearn.metrics import f1_score

    average = "binary" if logits.shape[-1] == 2 else "macro"
    return float(f1_score(labels, logits.argmax(-1), average=average, zero_division=0.0))


@fits("classification")
def matthews_correlation(logits: Values, labels: Values) -> float:
    """Matthews' correlation of classes and labels; 0 for a constant."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, logits.argmax(-1)))


@fits("regression")
def pearson(predictions: Values, labels: Values) -> float:
    """Pearson's correlation; 0 for a constant."""
    from scipy.stats import pearsonr

    return _defined(pearsonr, predictions, labels)


@fits("regression")
def spearman(predictions: Values, labels: Values) -> float:
    """Spearman's rank correlation; 0 for a constant."""
    from scipy.stats import spearmanr

    return _defined(spearmanr, predictions, labels)


@fits("choice", "generation")
def generated_accuracy(texts: Sequence[str], answers: Sequence[str]) -> float:
    """Share of the records for which the answer read out of generated text is right."""
    raise InputError("metric generated_accuracy: LanguageScorer computes it, which knows how answers are read.")


@fits("choice", "generation")
def log_likelihood(texts: Sequence[str], answers: Sequence[str]) -> float:
    """Log-likelihood of the outputs, in nats: the mean over their tokens."""
    raise InputError("metric log_likelihood: LanguageScorer computes it, from the model itself.")


WITHOUT_GENERATION = ("accuracy", "log_likelihood")
"""Metrics of records that are likelihoods."""


def check_metrics(names: Sequence[str], kind: str, select_metric: str | None = None) -> None:
    """Refuse a metric that does not exist or does not fit the kind of task.

    Raises:
        InputError: Naming it and those there are.
    """
    chosen = [] if select_metric is None else [("select_metric", select_metric)]
    for key, name in (*chosen, *(("metrics", name) for name in names)):
        kinds = _kinds(name)
        if kinds == ():
            raise InputError(
                f"task.{key}: '{name}' does not say which kinds of task it is for; put @fits(…) of "
                f"morenas.tasks.metrics on it, with some of {', '.join(KINDS)}."
            )
        if kinds is None or kind not in kinds:
            known = [other for other in registry("metric").names() if kind in (_kinds(other) or ())]
            raise InputError(
                f"task.{key}: '{name}' is no metric of a {kind} task{suggest(name, known)}. There are: "
                f"{', '.join(known)}."
            )


def needs_generation(name: str) -> bool:
    """Whether a metric of records is computed from generated text, which costs most of all."""
    return name not in WITHOUT_GENERATION


def compute_metrics(names: Sequence[str], kind: str, logits: Values, labels: Values) -> dict[str, float]:
    """Score logits ``(examples, num_labels)`` against labels ``(examples,)``."""
    import numpy as np

    predictions = np.asarray(logits)
    if kind == "regression":
        predictions = np.asarray(logits, dtype=np.float64).reshape(len(labels))
    return {name: score(name, predictions, labels) for name in names}


def score(name: str, *values: Any) -> float:
    """One metric of what it takes.

    Raises:
        InputError: If it gives anything but a number.
        RunError: If the number is not finite.
    """
    value = registry("metric").build(name)(*values)
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"metric {name}: gave {type(value).__name__} in place of one number.") from error
    if not math.isfinite(number):
        raise RunError(f"metric {name}: gave {number}; checkpoints cannot be compared by it, so it must be finite.")
    return number


def _kinds(name: str) -> tuple[str, ...] | None:
    """The kinds of task that a metric is for; None where there is no such metric."""
    if ":" not in name and name not in registry("metric").names():
        return None
    return tuple(getattr(registry("metric").get(name), "kinds", ()))


def _defined(correlation: Callable[[Values, Values], Any], predictions: Values, labels: Values) -> float:
    """Correlation with a constant is undefined; it predicts nothing, so it counts as none."""
    import numpy as np
    from scipy.stats import ConstantInputWarning

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        value = float(correlation(predictions, labels).statistic)
    return 0.0 if math.isnan(value) else value
