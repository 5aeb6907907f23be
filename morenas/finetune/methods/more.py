"""Monarch adapters, in the shapes of an architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from morenas.base.errors import InputError
from morenas.finetune.methods.method import Targets, check_dropout

if TYPE_CHECKING:
    from torch import Tensor

    from morenas.adapters import MoReConfig
    from morenas.adapters.config import HasShapes


@dataclass(frozen=True)
class More:
    """Monarch adapters (MoRe); an architecture says which modules get one, and of which shape.

    Attributes:
        dropout: Probability that an input of an adapter is dropped in training.
    """

    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_dropout(self.dropout)

    def with_architecture(
        self,
        architecture: HasShapes,
        factors: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        head_state: Mapping[str, Tensor] | None = None,
    ) -> ShapedMore:
        """These adapters in the shapes of an architecture; the arguments are the fields of ``ShapedMore``."""
        return ShapedMore(self.dropout, architecture=architecture, factors=factors or {}, head_state=head_state or {})

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> MoReConfig:
        raise InputError("method more: has no shapes yet; give them by More().with_architecture(architecture).")


@dataclass(frozen=True, kw_only=True)
class ShapedMore(More):
    """Monarch adapters on the modules that an architecture names; targets are ignored.

    Attributes:
        architecture: Such as a ``morenas.Architecture``.
        factors: Blocks ``(first, second)`` to start from, by module; modules left out start as the identity.
        head_state: Parameters of the head to start from, by name in the task model.
    """

    architecture: HasShapes
    factors: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    head_state: Mapping[str, Tensor] = field(default_factory=dict)

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> MoReConfig:
        from morenas.adapters import MoReConfig

        return MoReConfig.from_architecture(self.architecture, dropout=self.dropout, modules_to_save=list(head))
