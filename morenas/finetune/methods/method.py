"""What a method is, and checks of settings that several methods have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from morenas.base.errors import InputError
from morenas.base.registry import registry

if TYPE_CHECKING:
    from peft import PeftConfig

Targets = Mapping[str, tuple[int, int]]
"""Module name to ``(in_features, out_features)``."""


class Method(Protocol):
    """How a model is adapted. Whatever has ``peft_config`` is a method; ``register("method", …)`` gives it a name.

    One that takes its shapes from an architecture has ``with_architecture`` too, as ``More`` has.
    """

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> PeftConfig | None:
        """The config of the adapters, or None where weights of the model itself are trained.

        Args:
            targets: Modules that adapters go to.
            head: Modules trained whole, with any method.
            total_steps: Optimizer steps of the training to come.
        Raises:
            InputError: If the method's settings do not fit the targets.
        """
        ...


def method_name(method: Method) -> str:
    """What results and messages call a method: the name that it is chosen by, or its class's where it has none."""
    doors = registry("method")
    # ``RankedLora`` has no name of its own: it is what a LoRA becomes.
    named = (doors.chosen_by(cls) for cls in type(method).__mro__)
    return next((name for name in named if name in doors.names()), type(method).__name__)


def check_setting(name: str, value: object, holds: bool, rule: str) -> None:
    """Refuse a setting for which its rule does not hold."""
    if not holds:
        raise InputError(f"method.{name}={value}: must be {rule}.")


def check_dropout(dropout: float) -> None:
    """Refuse what is no probability below 1; PEFT would take a negative dropout for none."""
    check_setting("dropout", dropout, 0 <= dropout < 1, "at least 0 and below 1")


def check_widths(name: str, value: int, widths: Mapping[str, Sequence[int]]) -> None:
    """Refuse a setting that does not divide the widths of every module."""
    for module, of_module in widths.items():
        for width in of_module:
            if value < 1 or width % value:
                common = math.gcd(*(one for some in widths.values() for one in some))
                raise InputError(
                    f"method.{name}={value}: does not divide {width} ('{module}'); choose a {name} that divides the "
                    f"widths of all target modules (it then divides {common}), or name fewer targets."
                )


def check_fits(name: str, value: int, limits: Mapping[str, int], unit: str) -> None:
    """Refuse a setting that is above the limit of a module, given in ``unit``."""
    for module, limit in limits.items():
        if value > limit:
            raise InputError(
                f"method.{name}={value}: '{module}' has {limit} {unit} alone; choose a {name} of at most "
                f"{min(limits.values())}, or name fewer targets."
            )
