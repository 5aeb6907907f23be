"""A metric of classes of unequal size."""

from __future__ import annotations

from typing import Any

from morenas.tasks.metrics import fits


@fits("classification")
def balanced_accuracy(logits: Any, labels: Any) -> float:
    """Mean over the classes of the share that is right."""
    from sklearn.metrics import balanced_accuracy_score

    return float(balanced_accuracy_score(labels, logits.argmax(-1)))
