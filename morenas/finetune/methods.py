"""The ways to adapt a model, as values: our adapters, PEFT's own methods, everything, or the head alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol

from peft import AdaLoraConfig, BOFTConfig, GraloraConfig, LoraConfig, PeftConfig
from torch import Tensor

from morenas.adapters import MoReConfig
from morenas.base.errors import InputError, suggest

Targets = Mapping[str, tuple[int, int]]
"""Module name to ``(in_features, out_features)``."""


class Architecture(Protocol):
    """What ``More`` needs to know of an architecture."""

    @property
    def link(self) -> str: ...

    def shapes(self) -> Mapping[str, tuple[int, int]]: ...


class Method(Protocol):
    """How a model is adapted.

    Attributes:
        name: As on the command line.
    """

    name: ClassVar[str]

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> PeftConfig | None:
        """Return the config of the adapters, or ``None`` where weights of the model itself are trained.

        Raises:
            InputError: If the method's parameters do not fit the targets.
        """
        ...


@dataclass(frozen=True)
class More:
    """Monarch adapters of the shapes of an architecture, on the modules that it names whatever the targets.

    Attributes:
        architecture: Anything with ``shapes()`` and ``link``, such as ``morenas.space.Architecture``.
        factors: Blocks ``(first, second)`` to start from, by module; modules left out start as the identity.
        head_state: Parameters of the head to start from, by name in the task model.
    """

    name: ClassVar[str] = "more"
    architecture: Architecture
    dropout: float = 0.0
    factors: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    head_state: Mapping[str, Tensor] = field(default_factory=dict)

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> MoReConfig:
        return MoReConfig.from_architecture(self.architecture, dropout=self.dropout, modules_to_save=list(head))


@dataclass(frozen=True)
class Lora:
    """LoRA; every module is scaled by ``alpha / rank``.

    Attributes:
        alpha: ``None`` for twice the rank.
        ranks: Rank by module, in place of ``rank``; modules left out get no adapter. The scale stays.
    """

    name: ClassVar[str] = "lora"
    dora: ClassVar[bool] = False
    rank: int = 8
    alpha: float | None = None
    dropout: float = 0.0
    ranks: Mapping[str, int] | None = None

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> LoraConfig:
        _require_rank(self.name, self.rank)
        ranks = {name: rank for name, rank in (self.ranks or dict.fromkeys(targets, self.rank)).items() if rank > 0}
        scale = _alpha(self) / self.rank
        # PEFT reads the keys as regular expressions; without alpha_pattern the scale would change with the
        # rank
        other = {re.escape(name): rank for name, rank in ranks.items() if rank != self.rank}
        return LoraConfig(
            r=self.rank,
            lora_alpha=_whole(_alpha(self)),
            rank_pattern=other,
            alpha_pattern={name: _whole(scale * rank) for name, rank in other.items()},
            lora_dropout=self.dropout,
            use_dora=self.dora,
            target_modules=list(ranks),
            modules_to_save=list(head),
        )


@dataclass(frozen=True)
class Dora(Lora):
    """LoRA on the direction, with a trained magnitude per output feature."""

    name: ClassVar[str] = "dora"
    dora: ClassVar[bool] = True


@dataclass(frozen=True)
class AdaLora:
    """LoRA whose ranks are cut by sensitivity during training.

    Attributes:
        rank: Mean rank that is left.
        initial_rank: ``None`` for one and a half times ``rank``.
        warmup: Fraction of the steps before ranks are cut.
        settle: Fraction of the steps after the last cut.
        every: Optimizer steps between cuts.
    """

    name: ClassVar[str] = "adalora"
    rank: int = 8
    alpha: float | None = None
    dropout: float = 0.0
    initial_rank: int | None = None
    warmup: float = 0.1
    settle: float = 0.3
    every: int = 10
    orthogonality: float = 0.5

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> AdaLoraConfig:
        _require_rank(self.name, self.rank)
        initial = self.initial_rank if self.initial_rank is not None else -(-3 * self.rank // 2)
        before, after = int(self.warmup * total_steps), max(1, int(self.settle * total_steps))
        if initial <= self.rank:
            raise InputError(f"method adalora: initial_rank={initial} must be above rank={self.rank}: nothing to cut.")
        if before + after >= total_steps:
            raise InputError(
                f"method adalora: {total_steps} steps leave none between warmup={self.warmup} and "
                f"settle={self.settle}; train longer, or lower them."
            )
        return AdaLoraConfig(
            target_r=self.rank,
            init_r=initial,
            tinit=before,
            tfinal=after,
            deltaT=self.every,
            total_step=total_steps,
            orth_reg_weight=self.orthogonality,
            lora_alpha=_whole(_alpha(self)),
            lora_dropout=self.dropout,
            target_modules=list(targets),
            modules_to_save=list(head),
        )


@dataclass(frozen=True)
class GraLora:
    """LoRA cut into ``blocks`` times ``blocks`` blocks of rank ``rank / blocks`` each."""

    name: ClassVar[str] = "gralora"
    rank: int = 8
    alpha: float | None = None
    dropout: float = 0.0
    blocks: int = 2

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> GraloraConfig:
        _require_rank(self.name, self.rank)
        if self.rank % self.blocks:
            raise InputError(f"method {self.name}: rank={self.rank} must be a multiple of blocks={self.blocks}.")
        _require_divides(self.name, "blocks", self.blocks, targets)
        return GraloraConfig(
            r=self.rank,
            alpha=_whole(_alpha(self)),
            gralora_dropout=self.dropout,
            gralora_k=self.blocks,
            target_modules=list(targets),
            modules_to_save=list(head),
        )


@dataclass(frozen=True)
class Boft:
    """Orthogonal fine-tuning by block-diagonal rotations of the inputs, ``block_size`` wide.

    One butterfly: without a CUDA compiler PEFT falls back to one whatever is asked for.
    """

    name: ClassVar[str] = "boft"
    block_size: int = 4
    dropout: float = 0.0

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> BOFTConfig:
        _require_divides(
            self.name, "block_size", self.block_size, {name: (shape[0],) for name, shape in targets.items()}
        )
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

    name: ClassVar[str] = "full"

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> None:
        return None


@dataclass(frozen=True)
class Head:
    """The head alone: what the pretrained features are worth."""

    name: ClassVar[str] = "head"

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> None:
        return None


METHODS: dict[str, type[Any]] = {
    method.name: method for method in (More, Lora, Dora, AdaLora, GraLora, Boft, Full, Head)
}


def build_method(name: str, **parameters: Any) -> Method:
    """Build a method from its name and parameters; a parameter that is ``None`` keeps its default.

    Raises:
        InputError: For a method or parameter that does not exist.
    """
    if name not in METHODS:
        raise InputError(f"method={name!r} is none of {', '.join(METHODS)}{suggest(name, METHODS)}")
    known = [parameter.name for parameter in fields(METHODS[name])]
    given = {key: value for key, value in parameters.items() if value is not None}
    for key in given:
        if key not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise InputError(f"method {name} has no parameter {key!r}; {has}{suggest(key, known)}")
    return METHODS[name](**given)


def _alpha(method: Lora | AdaLora | GraLora) -> float:
    return 2 * method.rank if method.alpha is None else method.alpha


def _whole(value: float) -> Any:
    """Whole numbers as int: PEFT's configs want them so; it takes fractions too."""
    return int(value) if float(value).is_integer() else value


def _require_rank(method: str, rank: int) -> None:
    if rank < 1:
        raise InputError(f"method {method}: rank={rank} must be at least 1.")


def _require_divides(method: str, parameter: str, value: int, widths: Mapping[str, Sequence[int]]) -> None:
    for name, of in widths.items():
        for width in of:
            if value < 1 or width % value:
                raise InputError(
                    f"method {method}: {parameter}={value} does not divide {width} ('{name}'); choose a "
                    f"{parameter} that divides the widths of all target modules, or name fewer targets."
                )
