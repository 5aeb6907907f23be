"""Where the architecture's logits start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class SpectralStart:
    """At closed-form scores of what each candidate keeps of the change that the open supernet learns in the warm-up."""

    open_warmup: ClassVar[bool] = True


@dataclass(frozen=True)
class LevelStart:
    """At zero: every candidate the same."""

    open_warmup: ClassVar[bool] = False
