"""Commands of a few keys: the words of the others, flags too, one error line and one exit status."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from morenas.base.errors import InputError, RunError
from morenas.base.settings import one_of
from morenas.benchmark.command import COMMAND as BENCHMARK
from morenas.compare.command import COMMAND as COMPARE
from morenas.export.command import COMMAND as EXPORT
from morenas.run.listing import WIDTH
from morenas.run.words import WordCommand, parse, run_words, usage

COMMANDS = {"benchmark": BENCHMARK, "compare": COMPARE, "export": EXPORT}


@dataclass
class Settings:
    """Something.

    Attributes:
        out: Where to.
        places: Where from.
        shades: Several names.
        count: A number, or none.
        fast: A switch.
    """

    out: str
    places: tuple[str, ...] | None = None
    shades: tuple[str, ...] = one_of(("red", "blue"), ("red",))
    count: int | None = 3
    fast: bool = False


def nothing(settings: Settings) -> None: ...


COMMAND = WordCommand("Does it.", Settings, nothing, places="places")


@pytest.mark.parametrize(
    "words",
    [
        ["out=x", "places=[a,b]", "count=7", "fast=true"],
        ["--out", "x", "a", "b", "--count", "7", "--fast"],
        ["--out=x", "--places", "a", "b", "--count=7", "--fast=true"],
        ["--fast", "a", "--out", "x", "count=7", "b"],
    ],
    ids=" ".join,
)
def test_words_and_flags_say_the_same(words: list[str]) -> None:
    found = parse(COMMAND, words)
    assert (found.out, list(found.places), found.count, found.fast) == ("x", ["a", "b"], 7, True)


def test_values_are_taken_as_they_are_written() -> None:
    found = parse(COMMAND, ["out=1e3", "count=null"])
    assert (found.out, found.count, found.places) == ("1e3", None, None)
    assert parse(COMMAND, ["out=a=b"]).out == "a=b" and list(parse(COMMAND, ["out=x", "./a=b"]).places) == ["./a=b"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ot=x"], r"ot: there is no such key \(did you mean 'out'\?\). The keys are out, places"),
        (["--cuont", "3"], r"cuont: there is no such key \(did you mean 'count'\?\)"),
        (["out=x", "--out", "y"], "out: is given twice"),
        (["out=x", "--shades", "red", "bleu"], r"shades=bleu: choose from red, blue \(did you mean 'blue'\?\)"),
        (["out=x", "count=many"], "count=many: Value 'many' of type 'str' could not be converted to Integer"),
        (["out=x", "--count"], "count: needs a value: count=<value>"),
        (["count=3"], "out: must be set"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_words_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse(COMMAND, words)


def test_a_word_without_a_key_is_refused_where_none_takes_it() -> None:
    with pytest.raises(InputError, match=r"somewhere: give key=value\. The keys are run, to"):
        parse(EXPORT, ["somewhere"])


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_every_key_means(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_words(COMMANDS[name], ["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert usage(COMMANDS[name]).splitlines() == lines and all(len(line) <= WIDTH for line in lines)
    for key in COMMANDS[name].settings.__dataclass_fields__:
        assert any(line.split()[:1] == [key.removesuffix("_")] and len(line.split()) > 3 for line in lines), key


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("x=1: must be 2."), 2, "morenas: error: x=1: must be 2.\n"),
        (RunError("nothing moved"), 1, "morenas: failed: nothing moved\n"),
        (KeyboardInterrupt(), 1, "morenas: interrupted.\n"),
    ],
    ids=repr,
)
def test_every_ending_is_one_line_and_a_status(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(settings: Settings) -> None:
        raise error

    with pytest.raises(SystemExit) as stop:
        run_words(WordCommand("Fails.", Settings, fail), ["out=x"])
    assert stop.value.code == status and capsys.readouterr().err == line


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_the_work_of_one_process_is_refused_to_several(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as stop:
        run_words(COMMANDS[name], [])
    assert stop.value.code == 2 and "WORLD_SIZE=2: a launcher has started 2 processes" in capsys.readouterr().err


def test_a_fault_keeps_its_traceback() -> None:
    def fail(settings: Settings) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_words(WordCommand("Fails.", Settings, fail), ["out=x"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("compare", ["nowhere"]),
        ("compare", ["--formt", "csv"]),
        ("export", ["run=nowhere", "to=lora", "out=x"]),
        ("benchmark", ["--out", "x", "--jobs", "0"]),
        ("benchmark", ["out=x", "tables=[planed]"]),
    ],
)
def test_wrong_input_is_one_line_and_status_2(
    name: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run_words(COMMANDS[name], words)
    line = capsys.readouterr().err
    assert stop.value.code == 2 and line.startswith("morenas: error: ") and line.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["out=~/a", "places=[~/b,c]"], ["--out", "~/a", "--places", "~/b", "c"]])
def test_home_is_known_wherever_a_value_begins_with_it(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    found = parse(COMMAND, words)
    assert found.out == "/home/me/a" and tuple(found.places) == ("/home/me/b", "c")


def test_a_path_that_holds_an_equals_sign_is_shown_as_it_can_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lr=1 b").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"lr: there is no such key.*given as '\./lr=1 b'\."):
        parse(COMMAND, ["out=x", "lr=1 b"])
    assert list(parse(COMMAND, ["out=x", "./lr=1 b"]).places) == ["./lr=1 b"]
