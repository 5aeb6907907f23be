"""The method's name in PEFT's closed list of types.

PEFT's registry takes only members of its ``PeftType`` enum; the member is added here, in one place. The name is
distinctive, so that a method PEFT may one day ship under "more" does not collide with it.
"""

from __future__ import annotations

from peft.utils.peft_types import PeftType

NAME = "MORENAS"
PREFIX = "morenas_"


def extend_enum() -> PeftType:
    """Add the member to ``PeftType``, once; return it."""
    if NAME in PeftType.__members__:
        return PeftType(NAME)
    member = str.__new__(PeftType, NAME)
    member._name_, member._value_ = NAME, NAME
    type.__setattr__(PeftType, NAME, member)
    PeftType._member_map_[NAME] = member
    PeftType._value2member_map_[NAME] = member
    PeftType._member_names_.append(NAME)
    return member
