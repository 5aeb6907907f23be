"""Methods without low-rank factors: rotations of the inputs, every weight of the model, the head alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from morenas.finetune.methods.method import Targets, check_dropout, check_widths

if TYPE_CHECKING:
    from peft import BOFTConfig


@dataclass(frozen=True)
class Boft:
    """Orthogonal fine-tuning: the inputs are turned by block-diagonal rotations (Liu et al. 2024).

    There is one butterfly factor: without a CUDA compiler PEFT uses one, even if it is given more.

    Attributes:
        block_size: Width of a block, in features; must divide the input widths of all target modules.
        dropout: Fraction of the blocks that are left as the identity in a training step.
    """

    block_size: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_dropout(self.dropout)

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> BOFTConfig:
        from peft import BOFTConfig

        check_widths("block_size", self.block_size, {name: (width,) for name, (width, _) in targets.items()})
        return BOFTConfig(
            boft_block_size=self.block_size,
            boft_n_butterfly_factor=1,
            boft_dropout=self.dropout,
            target_modules=list(targets),
            modules_to_save=list(head),
        )


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
