"""Methods whose change of a weight is circulant, sparse in frequency, or a product of small factors; PEFT's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from morenas.finetune.methods.method import Targets, check_fits, check_widths
from morenas.finetune.methods.tuner import COUNT, POSITIVE, SHARE, Requirement, Tuner, setting


@dataclass(frozen=True)
class C3a(Tuner):
    """C3A: block-circulant matrices, of full rank at few parameters (Chen et al. 2025).

    Attributes:
        block_size: Width of a block, in features; must divide the widths of all target modules. PEFT's default.
    """

    CONFIG = "C3AConfig"

    block_size: int = setting(256, "block_size", COUNT)

    def check_targets(self, targets: Targets) -> None:
        check_widths("block_size", self.block_size, targets)


@dataclass(frozen=True)
class FourierFt(Tuner):
    """FourierFT: a few coefficients of the change's Fourier transform, at random places (Gao et al. 2024).

    Attributes:
        n_frequency: Coefficients a module, which are all that is trained; the paper's for GLUE.
        scaling: Factor of the change; PEFT's default, for GLUE.
    """

    CONFIG = "FourierFTConfig"

    n_frequency: int = setting(1000, "n_frequency", COUNT)
    scaling: float = setting(150.0, "scaling", POSITIVE)

    def check_targets(self, targets: Targets) -> None:
        limits = {name: n * m for name, (n, m) in targets.items()}
        check_fits("n_frequency", self.n_frequency, limits, "numbers of its weight")


@dataclass(frozen=True)
class Lycoris(Tuner):
    """What LoHa and LoKr have in common.

    Attributes:
        rank: Rank of every factor; PEFT's default.
        alpha: Adapters are scaled by alpha / rank; None for the rank.
        dropout: Fraction of the rows of a change that are dropped in a training step.
    """

    rank: int = setting(8, "r", COUNT)
    alpha: float | None = setting(
        None, "alpha", Requirement(lambda value: value is None or POSITIVE.holds(value), "above 0 and finite, or null")
    )
    dropout: float = setting(0.0, "rank_dropout", SHARE)

    def arguments(self, targets: Targets) -> dict[str, Any]:
        return {**super().arguments(targets), "alpha": self.rank if self.alpha is None else self.alpha}


@dataclass(frozen=True)
class LoHa(Lycoris):
    """LoHa: the Hadamard product of two low-rank matrices (Hyeon-Woo et al. 2022)."""

    CONFIG = "LoHaConfig"


@dataclass(frozen=True)
class LoKr(Lycoris):
    """LoKr: the Kronecker product of a small matrix and a low-rank one (Edalati et al. 2022; Yeh et al. 2024).

    Attributes:
        decompose_factor: Largest width of the small matrix; -1 for as near the square root as the widths allow.
    """

    CONFIG = "LoKrConfig"

    decompose_factor: int = setting(
        -1, "decompose_factor", Requirement(lambda value: value == -1 or value >= 1, "at least 1, or -1")
    )


@dataclass(frozen=True)
class Miss(Tuner):
    """MiSS: rows of one matrix, added to every stretch of the inputs (Kang and Yin 2025).

    Attributes:
        rank: Inputs are added up over stretches of this many features; PEFT's default.
        dropout: Probability that an input of an adapter is dropped in training.
    """

    CONFIG = "MissConfig"

    rank: int = setting(64, "r", COUNT)
    dropout: float = setting(0.0, "miss_dropout", SHARE)

    def check_targets(self, targets: Targets) -> None:
        check_fits("rank", self.rank, {name: n for name, (n, _) in targets.items()}, "inputs")
