"""LoRA and methods that build on it; the adapters are PEFT's own."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from morenas.base.errors import InputError
from morenas.finetune.methods.method import Targets, check_dropout, check_setting, check_widths

if TYPE_CHECKING:
    from peft import AdaLoraConfig, GraloraConfig, LoraConfig


@dataclass(frozen=True)
class LowRank:
    """What methods of two low-rank factors have in common.

    Attributes:
        rank: Rank of every adapter.
        alpha: Adapters are scaled by alpha / rank; None for twice the rank.
        dropout: Probability that an input of an adapter is dropped in training.
    """

    rank: int = 8
    alpha: float | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_dropout(self.dropout)
        check_setting("rank", self.rank, self.rank >= 1, "at least 1")
        fits = self.alpha is None or 0 < self.alpha < math.inf
        check_setting("alpha", self.alpha, fits, "above 0 and finite, or null for twice the rank")

    @property
    def _alpha(self) -> float:
        return 2 * self.rank if self.alpha is None else self.alpha


@dataclass(frozen=True)
class Lora(LowRank):
    """LoRA (Hu et al. 2021)."""

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> LoraConfig:
        return self._config(dict.fromkeys(targets, self.rank), head)

    def _config(self, ranks: Mapping[str, int], head: Sequence[str], **more: Any) -> LoraConfig:
        from peft import LoraConfig

        # PEFT reads the keys as regular expressions; without alpha_pattern the scale would change with the rank.
        other = {re.escape(name): rank for name, rank in ranks.items() if rank != self.rank}
        scale = self._alpha / self.rank
        return LoraConfig(
            r=self.rank,
            lora_alpha=_whole(self._alpha),
            rank_pattern=other,
            alpha_pattern={name: _whole(scale * rank) for name, rank in other.items()},
            lora_dropout=self.dropout,
            target_modules=list(ranks),
            modules_to_save=list(head),
            **more,
        )


@dataclass(frozen=True)
class Dora(Lora):
    """LoRA on the direction, with a trained magnitude per output feature (Liu et al. 2024)."""

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> LoraConfig:
        return self._config(dict.fromkeys(targets, self.rank), head, use_dora=True)


@dataclass(frozen=True)
class RsLora(Lora):
    """LoRA scaled so that high ranks learn as fast as low ones (Kalajdzievski 2023).

    Attributes:
        alpha: Adapters are scaled by alpha / sqrt(rank); None for 16, whatever the rank.
    """

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> LoraConfig:
        return self._config(dict.fromkeys(targets, self.rank), head, use_rslora=True)

    @property
    def _alpha(self) -> float:
        return 16 if self.alpha is None else self.alpha


@dataclass(frozen=True)
class AdaLora(LowRank):
    """LoRA whose ranks are cut by sensitivity during training (Zhang et al. 2023).

    Attributes:
        rank: Mean rank that is left.
        initial_rank: Rank before the first cut; None for one and a half times ``rank``.
        warmup: Fraction of the optimizer steps before the first cut.
        settle: Fraction of the optimizer steps after the last cut.
        every: Optimizer steps between cuts.
        orthogonality: Weight, in the loss, of how far the factors are from orthogonal.
    """

    initial_rank: int | None = None
    warmup: float = 0.1
    settle: float = 0.3
    every: int = 10
    orthogonality: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        cuts = self._initial > self.rank
        check_setting("initial_rank", self._initial, cuts, f"above rank={self.rank}, or there is nothing to cut")
        for name in ("warmup", "settle"):
            check_setting(name, getattr(self, name), 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        check_setting("every", self.every, self.every >= 1, "at least 1")
        check_setting("orthogonality", self.orthogonality, 0 < self.orthogonality < math.inf, "above 0 and finite")

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> AdaLoraConfig:
        from peft import AdaLoraConfig

        before, after = int(self.warmup * total_steps), max(1, int(self.settle * total_steps))
        if before + after >= total_steps:
            raise InputError(
                f"method adalora: {total_steps} steps leave none between warmup={self.warmup} and "
                f"settle={self.settle}; train longer, or lower them."
            )
        return AdaLoraConfig(
            target_r=self.rank,
            init_r=self._initial,
            tinit=before,
            tfinal=after,
            deltaT=self.every,
            total_step=total_steps,
            orth_reg_weight=self.orthogonality,
            lora_alpha=_whole(self._alpha),
            lora_dropout=self.dropout,
            target_modules=list(targets),
            modules_to_save=list(head),
        )

    @property
    def _initial(self) -> int:
        return self.initial_rank if self.initial_rank is not None else -(-3 * self.rank // 2)


@dataclass(frozen=True)
class GraLora(LowRank):
    """LoRA cut into ``blocks`` times ``blocks`` blocks of rank ``rank / blocks`` each (Jung et al. 2025).

    Attributes:
        rank: Rank of every adapter; a multiple of ``blocks``.
        blocks: Blocks along each side; must divide the widths of all target modules.
    """

    blocks: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.blocks >= 1 and self.rank % self.blocks == 0
        check_setting("rank", self.rank, fits, f"a multiple of blocks={self.blocks}")

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> GraloraConfig:
        from peft import GraloraConfig

        check_widths("blocks", self.blocks, targets)
        return GraloraConfig(
            r=self.rank,
            alpha=_whole(self._alpha),
            gralora_dropout=self.dropout,
            gralora_k=self.blocks,
            target_modules=list(targets),
            modules_to_save=list(head),
        )


def _whole(value: float) -> Any:
    """Whole numbers as int: PEFT's configs want them so; it takes fractions too."""
    return int(value) if float(value).is_integer() else value
