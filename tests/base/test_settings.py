"""Settings declared once: what fields mean and what they may be."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest

from morenas.base.errors import InputError
from morenas.base.settings import check_names, door, meanings, names_of, one_of


@dataclass(frozen=True)
class Base:
    """Something.

    Attributes:
        steps: How many.
    """

    steps: int = 3


@dataclass(frozen=True)
class Settings(Base):
    """More of it.

    Attributes:
        shade: Its colour, which
            may take two lines: or a colon.
        relaxation: By name.

    Raises:
        ValueError: Never.
    """

    shade: str = one_of(("red", "blue"), "red")
    relaxation: object = door("relaxation", "softmax")


def test_meanings_are_read_from_docstrings_of_the_class_and_what_it_extends() -> None:
    assert meanings(Settings) == {
        "steps": "How many.",
        "shade": "Its colour, which may take two lines: or a colon.",
        "relaxation": "By name.",
    }


def test_a_field_tells_the_names_it_takes() -> None:
    steps, shade, relaxation = fields(Settings)
    assert names_of(steps) == () and names_of(shade) == ("red", "blue") and "gumbel" in names_of(relaxation)


class Hard:
    """An object that is a relaxation, as far as can be seen from outside."""

    def scores(self) -> None: ...

    def logits(self) -> None: ...

    def mixing_probs(self) -> None: ...


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"shade": "blu"}, r"paint.shade=blu: choose from red, blue \(did you mean 'blue'\?\)"),
        (
            {"relaxation": 3},
            r"paint.relaxation=3: has no scores, logits, mixing_probs. Give a name, or an object as morenas.supernet",
        ),
        (
            {"relaxation": "sofmax"},
            r"=sofmax: there is no such relaxation \(did you mean 'softmax'\?\)",
        ),
    ],
)
def test_another_name_is_refused(wrong: dict[str, str], said: str) -> None:
    check_names(Settings(), "paint")
    check_names(Settings(relaxation=Hard()), "paint")
    with pytest.raises(InputError, match=said):
        check_names(Settings(**wrong), "paint")  # type: ignore[arg-type]
