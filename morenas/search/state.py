"""What a search keeps: snapshots of its mixing probabilities, and the checkpoint that it goes on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from morenas.base.errors import InputError
from morenas.base.tensors import load_tensors, save_tensors
from morenas.bilevel import BilevelLoop
from morenas.search.objective import Objective

SNAPSHOTS = 200  # mixing probabilities kept of a search, evenly spread


@dataclass
class Trace:
    """Snapshots of the mixing probabilities, thinned to at most ``SNAPSHOTS``.

    Attributes:
        total: Weight steps of the search.
        steps: The weight step of each snapshot.
        probs: The snapshots, each ``(groups, choices)``, float32.
    """

    total: int
    steps: list[int] = field(default_factory=list)
    probs: list[Tensor] = field(default_factory=list)

    def add(self, step: int, probs: Tensor, last: bool = False) -> None:
        """Keep a snapshot if it is this step's turn, or the last of all."""
        if last or step % max(1, self.total // SNAPSHOTS) == 0:
            self.steps.append(step)
            self.probs.append(probs.detach().float().cpu())


@dataclass
class State:
    """What a search goes on from.

    Attributes:
        checkpoint: File that it is kept in; None for none.
        loop: Its whole state is a part of it.
        objective: The passes that it has taken so far are a part of it.
        steps: Weight steps of the search.
        trace: Snapshots so far.
        priors: Scores that the start has left for the selection.
        learnt: What says whether the warm-up has learnt anything; see ``Witness.said``.
    """

    checkpoint: Path | None
    loop: BilevelLoop
    objective: Objective
    steps: int
    trace: Trace = field(init=False)
    priors: Sequence[Tensor] = ()
    learnt: dict[str, float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.trace = Trace(self.steps)

    def save(self) -> None:
        """Write the checkpoint, if one is kept."""
        if self.checkpoint is None:
            return
        tensors = {f"trace.{index}": probs for index, probs in enumerate(self.trace.probs)}
        tensors |= {f"prior.{index}": prior for index, prior in enumerate(self.priors)}
        info = {
            "trace_steps": self.trace.steps,
            "priors": len(self.priors),
            "work": self.objective.work,
            "learnt": self.learnt,
        }
        save_tensors(self.checkpoint, {**self.loop.state_tensors(), **tensors}, info)

    def load(self) -> None:
        """Take up the checkpoint, if there is one.

        Raises:
            InputError: If the file is not whole, or belongs to another search.
        """
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        tensors, info = load_tensors(self.checkpoint)
        try:
            self.loop.load_state_tensors(tensors)
            self.trace.steps, self.objective.work, self.learnt = info["trace_steps"], info["work"], info["learnt"]
            self.trace.probs = [tensors[f"trace.{index}"] for index in range(len(self.trace.steps))]
            self.priors = [tensors[f"prior.{index}"] for index in range(info["priors"])]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self.checkpoint}: belongs to another search ({error}); remove it to begin this phase anew."
            ) from error
