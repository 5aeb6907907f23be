"""GLUE's metrics are those of scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as scores

from morenas.tasks.metrics import compute_metrics

RNG = np.random.default_rng(0)
LOGITS, LABELS = RNG.normal(size=(200, 2)), RNG.integers(0, 2, 200)
PREDICTED = LOGITS.argmax(-1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", scores.accuracy_score(LABELS, PREDICTED)),
        ("f1", scores.f1_score(LABELS, PREDICTED)),
        ("matthews_correlation", scores.matthews_corrcoef(LABELS, PREDICTED)),
    ],
)
def test_classification(name: str, expected: float) -> None:
    assert compute_metrics([name], "classification", LOGITS, LABELS) == {name: pytest.approx(expected)}


def test_f1_goes_by_the_classes_of_the_task_and_not_by_those_that_occur() -> None:
    logits, labels = np.eye(3)[[0, 1, 1, 0]], np.array([0, 1, 0, 0])
    assert compute_metrics(["f1"], "classification", logits, labels)["f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert compute_metrics(["f1"], "classification", logits[:, :2], labels)["f1"] == pytest.approx(2 / 3)


def test_regression() -> None:
    labels, logits = RNG.normal(size=100), RNG.normal(size=(100, 1))
    found = compute_metrics(["pearson", "spearman"], "regression", logits, labels)
    assert found["pearson"] == pytest.approx(stats.pearsonr(logits[:, 0], labels).statistic)
    assert found["spearman"] == pytest.approx(stats.spearmanr(logits[:, 0], labels).statistic)


def test_a_constant_prediction_correlates_with_nothing() -> None:
    found = compute_metrics(["pearson", "spearman"], "regression", np.ones((9, 1)), np.arange(9.0))
    assert found == {"pearson": 0.0, "spearman": 0.0}
    constant = np.tile([1.0, 0.0], (200, 1))
    assert compute_metrics(["matthews_correlation", "f1"], "classification", constant, LABELS) == {
        "matthews_correlation": 0.0,
        "f1": 0.0,
    }
