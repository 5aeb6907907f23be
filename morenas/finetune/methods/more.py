"""Monarch adapters, in the shapes of an architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from morenas.base.errors import InputError
from morenas.base.settings import check_names, one_of
from morenas.finetune.methods.method import Targets, check_dropout, check_setting

if TYPE_CHECKING:
    from torch import Tensor

    from morenas.adapters import MoReConfig
    from morenas.adapters.config import HasShapes


@dataclass(frozen=True)
class More:
    """Monarch adapters (MoRe): in the shapes of an architecture, or in one shape on all target modules.

    Attributes:
        dropout: Probability that an input of an adapter is dropped in training.
        nblocks: Blocks of every adapter, without an architecture; the paper's uniform shape is 4 blocks of rank 4.
        blk_r: Rank of a block, likewise.
        link: Permutation between the factors, likewise: "cyclic", or the paper's, "monarch".
    """

    dropout: float = 0.0
    nblocks: int | None = None
    blk_r: int | None = None
    link: str = one_of(("cyclic", "monarch"), "cyclic")

    def __post_init__(self) -> None:
        check_dropout(self.dropout)
        check_names(self, "method")
        for name in ("nblocks", "blk_r"):
            value = getattr(self, name)
            check_setting(name, value, value is None or value >= 1, "at least 1")
        together = (self.nblocks is None) == (self.blk_r is None)
        check_setting("blk_r", self.blk_r, together, f"given together with nblocks, which is {self.nblocks}")

    def with_architecture(
        self,
        architecture: HasShapes,
        factors: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        head_state: Mapping[str, Tensor] | None = None,
    ) -> ShapedMore:
        """These adapters in the shapes of an architecture; the arguments are the fields of ``ShapedMore``."""
        return ShapedMore(
            dropout=self.dropout, architecture=architecture, factors=factors or {}, head_state=head_state or {}
        )

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> MoReConfig:
        if self.nblocks is None or self.blk_r is None:
            raise InputError(
                "method more: has no shapes yet; give them by More().with_architecture(architecture), or one for all "
                "modules by More(nblocks=4, blk_r=4)."
            )
        from morenas.adapters import MoReConfig

        return MoReConfig(
            nblocks=self.nblocks,
            blk_r=self.blk_r,
            link=self.link,
            dropout=self.dropout,
            target_modules=list(targets),
            modules_to_save=list(head),
        )


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
