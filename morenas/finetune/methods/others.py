"""Methods without adapters: every weight of the model, or the head alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from morenas.finetune.methods.method import Targets


@dataclass(frozen=True)
class Full:
    """Every weight of the model."""

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> None:
        return None


@dataclass(frozen=True)
class Head:
    """The head alone: what the pretrained features are worth."""

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> None:
        return None
