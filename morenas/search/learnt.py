"""Whether the warm supernet has learnt anything: its loss beside that of the best answer that is always the same.

A supernet that has collapsed gives all inputs the same output, so that its loss cannot be below that of the best
constant answer on the same examples: the entropy of their classes, or the variance of their numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from morenas.base import processes
from morenas.tasks.batches import Batch, Batches

FEWEST = 64  # examples; the classes of fewer say too little of what a constant answer is worth


@dataclass
class Witness:
    """Gives the loss of numbered batches, and remembers it.

    Attributes:
        by_labels: Whether it is the loss that a model of transformers has by its labels.
        seen: By number of batch its loss and its labels, where it has one label an example; of several processes each
            has seen its own.
    """

    batches: Batches
    evaluate: Callable[[Batch], Tensor]
    by_labels: bool = True
    seen: dict[int, tuple[float, Tensor]] = field(default_factory=dict)

    def __call__(self, number: int) -> Tensor:
        """Loss of a batch, as ``evaluate`` gives it."""
        batch = self.batches[number]
        loss = self.evaluate(batch)
        if isinstance(labels := batch.get("labels"), Tensor) and labels.ndim == 1:
            self.seen[number] = float(loss.detach()), labels.detach().cpu()
        return loss

    def said(self, learning_rate: float) -> dict[str, float | str]:
        """``warm_loss`` and ``constant_loss``, means over the examples, and ``learnt_nothing``, words, if that is so.

        Args:
            learning_rate: Of the warm-up.
        Returns:
            What ``architecture.json`` has of it; empty where nothing can be told: too few examples, or another loss.
        """
        seen = processes.merge(self.seen).values()
        losses, labels = [loss for loss, _ in seen], [labels for _, labels in seen]
        if not self.by_labels or sum(map(len, labels)) < FEWEST:
            return {}
        weights = torch.tensor([float(len(one)) for one in labels], dtype=torch.float64)
        loss = float(weights @ torch.tensor(losses, dtype=torch.float64) / weights.sum())
        constant = constant_loss(torch.cat(labels))
        words = {} if loss < constant else {"learnt_nothing": nothing_learnt(loss, constant, learning_rate)}
        return {"warm_loss": loss, "constant_loss": constant, **words}


def constant_loss(labels: Tensor) -> float:
    """Least loss of an answer that does not look at the input, on labels ``(examples,)``.

    Returns:
        Of classes, whole numbers, their entropy in nats; of other numbers their variance, the least squared error.
    """
    if labels.is_floating_point():
        return float(labels.double().var(unbiased=False))
    counts = labels.unique(return_counts=True)[1].double()
    return float(torch.special.entr(counts / counts.sum()).sum())


def nothing_learnt(loss: float, constant: float, learning_rate: float) -> str:
    """What to say of a warm supernet whose loss is no lower than a constant answer's."""
    return (
        f"The search has learnt nothing: after its warm-up the loss on search_val is {loss:.4f}, and the same answer "
        f"to every input has {constant:.4f}. The open supernet may have collapsed: lower search.learning_rate (now "
        f"{learning_rate:g}). Or it had too few steps: train longer (training.epochs)."
    )
