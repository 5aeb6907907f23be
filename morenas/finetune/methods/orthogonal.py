"""Methods that rotate: the inputs of a layer, or the leading part of its weight; the adapters are PEFT's own."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from morenas.finetune.methods.method import Targets, check_fits, check_widths
from morenas.finetune.methods.tuner import COUNT, SHARE, Requirement, Tuner, setting


@dataclass(frozen=True)
class Boft(Tuner):
    """Orthogonal fine-tuning: the inputs are turned by block-diagonal rotations (Liu et al. 2024).

    There is one butterfly factor: without a CUDA compiler PEFT uses one, even if it is given more.

    Attributes:
        block_size: Width of a block, in features; must divide the input widths of all target modules.
        dropout: Fraction of the blocks that are left as the identity in a training step.
    """

    CONFIG = "BOFTConfig"
    FIXED = MappingProxyType({"boft_n_butterfly_factor": 1})

    block_size: int = setting(4, "boft_block_size", COUNT)
    dropout: float = setting(0.0, "boft_dropout", SHARE)

    def check_targets(self, targets: Targets) -> None:
        check_widths("block_size", self.block_size, {name: (n,) for name, (n, _) in targets.items()})


@dataclass(frozen=True)
class Oft(Tuner):
    """OFT: the inputs are turned by block-diagonal rotations, from a short Neumann series (Qiu et al. 2023, 2025).

    Attributes:
        block_size: Width of a block, in features; must divide the input widths of all target modules. PEFT's default.
        dropout: Fraction of the blocks that are left as the identity in a training step.
    """

    CONFIG = "OFTConfig"

    block_size: int = setting(32, "oft_block_size", Requirement(lambda value: value >= 2, "at least 2"))
    dropout: float = setting(0.0, "module_dropout", SHARE)

    def check_targets(self, targets: Targets) -> None:
        # PEFT would take the nearest size that divides, layer by layer.
        check_widths("block_size", self.block_size, {name: (n,) for name, (n, _) in targets.items()})


@dataclass(frozen=True)
class Hra(Tuner):
    """HRA: the inputs are turned by a chain of Householder reflections (Yuan et al. 2024).

    Attributes:
        rank: Reflections a layer; PEFT's default. Even, so that they cancel out in pairs at the start.
    """

    CONFIG = "HRAConfig"
    NEEDS_NUMBERS = True

    rank: int = setting(8, "r", Requirement(lambda value: value >= 2 and value % 2 == 0, "even and at least 2"))


@dataclass(frozen=True)
class Psoft(Tuner):
    """PSOFT: a rotation and two scales within the weight's leading singular vectors (Wu et al. 2025).

    PEFT computes those vectors again when it loads an adapter.

    Attributes:
        rank: Singular vectors a layer; PEFT's default.
        dropout: Probability that an input of an adapter is dropped in training.
    """

    CONFIG = "PsoftConfig"
    NEEDS_NUMBERS = True

    rank: int = setting(32, "r", COUNT)
    dropout: float = setting(0.0, "psoft_dropout", SHARE)

    def check_targets(self, targets: Targets) -> None:
        check_fits("rank", self.rank, {name: min(shape) for name, shape in targets.items()}, "singular values")

    def arguments(self, targets: Targets) -> dict[str, Any]:
        # PEFT divides the scale alpha / rank out of the singular vectors again: of one, no rounding comes.
        return {**super().arguments(targets), "psoft_alpha": self.rank}
