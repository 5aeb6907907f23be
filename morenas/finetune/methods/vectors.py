"""Methods that train vectors: scales of a layer, or numbers that all layers share; the adapters are PEFT's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from morenas.finetune.methods.method import Targets, check_setting, check_widths
from morenas.finetune.methods.tuner import COUNT, POSITIVE, SHARE, Tuner, setting


@dataclass(frozen=True)
class Ia3(Tuner):
    """(IA)^3: a factor for every output feature (Liu et al. 2022).

    Where a layer outside attention narrows, as the second of a feed-forward block does, it is for every input feature,
    as in the paper.
    """

    CONFIG = "IA3Config"

    def arguments(self, targets: Targets) -> dict[str, Any]:
        narrowing = [
            name for name, (n, m) in targets.items() if n > m and "attn" not in name and "attention" not in name
        ]
        return {"feedforward_modules": narrowing}


@dataclass(frozen=True)
class Vera(Tuner):
    """VeRA: a LoRA of random factors that all layers share, with two trained scales a layer (Kopiczko et al. 2024).

    Attributes:
        rank: Rank of the shared factors, and length of one of the scales; PEFT's default.
        initial: Start of that scale; the other starts at 0. As in the paper.
        dropout: Probability that an input of an adapter is dropped in training.
    """

    CONFIG = "VeraConfig"

    rank: int = setting(256, "r", COUNT)
    initial: float = setting(0.1, "d_initial", POSITIVE)
    dropout: float = setting(0.0, "vera_dropout", SHARE)


@dataclass(frozen=True)
class VbLora(Tuner):
    """VB-LoRA: LoRA factors put together of vectors out of one bank, shared by all layers (Li et al. 2024).

    Defaults are the paper's. Counted is what is trained: the bank, and a logit for every vector at every place.

    Attributes:
        rank: Rank of every adapter.
        num_vectors: Vectors in the bank.
        vector_length: Features a vector; must divide the widths of all target modules.
        topk: Vectors that are mixed at a place.
        dropout: Probability that an input of an adapter is dropped in training.
    """

    CONFIG = "VBLoRAConfig"

    rank: int = setting(4, "r", COUNT)
    num_vectors: int = setting(256, "num_vectors", COUNT)
    vector_length: int = setting(256, "vector_length", COUNT)
    topk: int = setting(2, "topk", COUNT)
    dropout: float = setting(0.0, "vblora_dropout", SHARE)

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.topk <= self.num_vectors
        check_setting("topk", self.topk, fits, f"at most num_vectors={self.num_vectors}")

    def check_targets(self, targets: Targets) -> None:
        check_widths("vector_length", self.vector_length, targets)


@dataclass(frozen=True)
class UniLora(Tuner):
    """Uni-LoRA: the factors of all layers are projected out of one trained vector (Li et al. 2025).

    Attributes:
        rank: Rank of every adapter.
        length: Length of the vector, which is all that is trained; PEFT's default.
        dropout: Probability that an input of an adapter is dropped in training.
    """

    CONFIG = "UniLoraConfig"

    rank: int = setting(4, "r", COUNT)
    length: int = setting(256, "theta_d_length", COUNT)
    dropout: float = setting(0.0, "unilora_dropout", SHARE)
