"""Methods of PEFT's that need no more than their settings, checked and handed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from morenas.finetune.methods.method import Targets, check_setting

if TYPE_CHECKING:
    from peft import PeftConfig


class Requirement(NamedTuple):
    """What a setting must be.

    Attributes:
        holds: Whether a value is.
        words: The same, as it follows "must be".
    """

    holds: Callable[[Any], bool]
    words: str


COUNT = Requirement(lambda value: value >= 1, "at least 1")
POSITIVE = Requirement(lambda value: 0 < value < float("inf"), "above 0 and finite")
SHARE = Requirement(lambda value: 0 <= value < 1, "at least 0 and below 1")


def setting(default: Any, peft: str, rule: Requirement) -> Any:
    """A setting of a ``Tuner``.

    Args:
        peft: What PEFT's config calls it.
        rule: What it must be.
    """
    return field(default=default, metadata={"peft": peft, "rule": rule})


@dataclass(frozen=True)
class Tuner:
    """A method of PEFT's. One of its kind names PEFT's config and declares its fields by ``setting``."""

    CONFIG: ClassVar[str]
    """Name of the config in PEFT."""

    FIXED: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Arguments of the config that are no settings."""

    NEEDS_NUMBERS: ClassVar[bool] = False
    """Whether it reads frozen weights as they are stored, so that they must not be quantized."""

    def __post_init__(self) -> None:
        for one in fields(self):
            rule, value = one.metadata["rule"], getattr(self, one.name)
            check_setting(one.name, value, rule.holds(value), rule.words)

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> PeftConfig:
        import peft

        self.check_targets(targets)
        config: PeftConfig = getattr(peft, self.CONFIG)(
            **self.FIXED, **self.arguments(targets), target_modules=list(targets), modules_to_save=list(head)
        )
        return config

    def check_targets(self, targets: Targets) -> None:
        """Refuse settings that do not fit the modules; PEFT's messages name no module."""

    def arguments(self, targets: Targets) -> dict[str, Any]:
        """The settings, as PEFT's config calls them."""
        return {one.metadata["peft"]: getattr(self, one.name) for one in fields(self)}
