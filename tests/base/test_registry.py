"""Doors: names, objects and modules of others."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from morenas.base.builtin import BUILTIN
from morenas.base.errors import InputError
from morenas.base.registry import Registry, load_plugins, register, registry


@dataclass(frozen=True)
class Sharp:
    power: float = 2.0


@dataclass(frozen=True)
class Outer:
    inner: Sharp
    way: object
    sizes: tuple[int, ...] = (1, 2)
    other: dict[int, None] = field(default_factory=lambda: {1: None})


def plain(value: int, factor: int = 1) -> int:
    return value * factor


@pytest.mark.parametrize("kind", BUILTIN)
def test_everything_that_comes_with_morenas_is_where_the_table_says(kind: str) -> None:
    assert registry(kind).names()
    for name in BUILTIN[kind]:
        assert registry(kind).get(name) is not None


def test_a_class_is_built_with_its_settings_and_a_function_is_taken_as_it_is() -> None:
    doors = Registry("paint", {})
    doors.register("sharp", Sharp)
    doors.register("plain", plain)
    assert doors.build("sharp", power=3.0) == Sharp(3.0) and doors.settings("sharp") == ("power",)
    assert doors.build("plain") is plain and doors.build("plain", factor=3)(2) == 6 and doors.settings("plain") == ()
    assert doors.get(Sharp(4.0)) == Sharp(4.0) and doors.build(plain) is plain


def test_an_object_is_imported_when_it_is_asked_for() -> None:
    doors = Registry("paint", {"square": "math:sqrt"})
    assert doors.names() == ("square",) and doors.get("square")(4) == 2 and doors.get("math:floor")(1.5) == 1


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (
            lambda doors: doors.get("sharpe"),
            r"no such paint \(did you mean 'sharp'\?\). Choose from sharp",
        ),
        (
            lambda doors: doors.build("sharp", pover=1),
            r"no setting 'pover'; it has power \(did you mean 'power'\?\)",
        ),
        (lambda doors: doors.register("sharp", plain), "'sharp': is registered already"),
        (lambda doors: doors.get("no.such.module:Name"), "cannot be imported .* give package.module:Name"),
        (lambda doors: doors.get("math:Name"), "cannot be imported .* give package.module:Name"),
        (lambda doors: register("relaxaton", "sharp", Sharp), r"no door 'relaxaton' \(did you mean 'relaxation'\?\)"),
        (lambda doors: load_plugins(["no_such_plugin"]), "plugins=no_such_plugin: cannot be imported"),
    ],
)
def test_what_does_not_exist_is_refused(use: object, said: str) -> None:
    doors = Registry("paint", {})
    doors.register("sharp", Sharp)
    with pytest.raises(InputError, match=said):
        use(doors)  # type: ignore[operator]


def test_everything_that_comes_with_morenas_is_called_by_its_name() -> None:
    """So that what was given as an object is recorded by the name that would have chosen it."""
    for kind, names in BUILTIN.items():
        for name in names:
            target = registry(kind).get(name)
            assert registry(kind).chosen_by(target) == name


def test_a_name_is_recorded_as_it_is_and_an_object_with_its_settings() -> None:
    doors = Registry("paint", {})
    doors.register("sharp", Sharp)
    doors.register("plain", plain)
    assert doors.record("sharp") == "sharp" and doors.record("some.module:Name") == "some.module:Name"
    assert doors.record(Sharp(3.0)) == {"name": "sharp", "power": 3.0}
    assert doors.record(plain) == {"name": "plain"}
    assert doors.record(doors.build("plain", factor=3)) == {"name": "plain", "factor": 3}
    assert doors.record(Outer(Sharp(4.0), plain)) == {
        "name": f"{__name__}:Outer",
        "inner": {"name": f"{__name__}:Sharp", "power": 4.0},
        "way": f"{__name__}:plain",
        "sizes": [1, 2],
        "other": {"1": None},
    }
    json.dumps(doors.record(Outer(Sharp(4.0), object())))


def test_the_same_object_may_be_registered_again() -> None:
    doors = Registry("paint", {})
    doors.register("sharp", Sharp)
    doors.register("sharp", Sharp)
    assert doors.names() == ("sharp",)


def test_a_plugin_is_a_module_that_registers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "doors_of_mine.py").write_text(
        "from morenas.base.registry import register\nregister('relaxation', 'mine_of_a_test', print)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry("relaxation"), "_targets", dict(registry("relaxation")._targets))
    load_plugins(["doors_of_mine"])
    assert registry("relaxation").get("mine_of_a_test") is print
    sys.modules.pop("doors_of_mine")
