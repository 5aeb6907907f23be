"""``--help`` says what every key means, its value and what it may be."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf
from tiny_runs import COMMANDS, CommandLine

from morenas.run.composing import compose_words, declared, known_keys, leaves, untyped
from morenas.run.launch import prepare
from morenas.run.listing import WIDTH, Key, listed, written
from morenas.run.usage import keys


@pytest.mark.parametrize("name", COMMANDS)
def test_every_key_is_listed_with_what_it_means(command: CommandLine, name: str) -> None:
    done = command(name, "--help")
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert all(len(line) <= WIDTH for line in lines)
    there = declared(OmegaConf.structured(COMMANDS[name].schema))
    told = {line.split()[0] for line in lines if line.startswith("    ") and line.split()}
    assert set(leaves(there)) <= told
    schema = COMMANDS[name].schema
    prepare(name, schema, [])
    assert [one.path for one in keys(untyped(compose_words(name, [])), schema, []) if not one.meaning] == []


def test_values_are_those_that_the_words_set(command: CommandLine) -> None:
    told = command("search", "--help", "+task=glue/rte", "training", "training.epochs=7").out
    assert "training.epochs" in told and " 7" in told and "task.name" not in told
    assert "glue/rte" in command("search", "--help", "task.name", "+task=glue/rte").out


def test_a_task_that_still_lacks_something_is_told_too(command: CommandLine) -> None:
    told = command("search", "--help", "task", "+task=hub").out
    assert "(to be set)" in told and "${task.hub_path}" in told


def test_names_that_a_key_may_take_are_told(command: CommandLine) -> None:
    told = " ".join(command("search", "--help", "relaxation.name").out.split())
    assert "One of midpoint, softmax, gumbel, dirichlet." in told
    assert "model=demo|llama|" in command("search", "--help", "model").out


def test_settings_of_what_is_chosen_are_told(command: CommandLine) -> None:
    assert "method.block_size" in command("finetune", "--help", "method=boft").out
    assert "hypergradient.terms" in command("search", "--help", "hypergradient", "hypergradient=neumann").out


def test_help_on_nothing_is_refused_with_the_nearest(command: CommandLine) -> None:
    done = command("search", "--help", "trainign")
    assert (
        done.status == 2 and "--help trainign: there is no such section or key (did you mean 'training'?)" in done.err
    )


def test_columns_are_aligned_and_long_values_stand_alone() -> None:
    lines = listed([Key("a.b", "1", "What it is."), Key("a.long", "x" * 40, "word " * 40), Key("a.c", "null", "")])
    assert lines[0] == "    a.b     1     What it is."
    assert lines[1] == f"    a.long  {'x' * 40}" and lines[2].startswith(" " * 18 + "word word")
    assert lines[-1] == "    a.c     null" and all(len(line) <= WIDTH for line in lines)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        ([1, "a"], "[1, a]"),
        ({"a": None}, "{a: null}"),
        ("???", "(to be set)"),
        (0.5, "0.5"),
    ],
)
def test_values_are_written_as_on_a_command_line(value: object, text: str) -> None:
    assert written(value) == text


def test_keys_of_a_section_that_were_never_declared_are_not_known() -> None:
    assert "relaxation.power" not in known_keys(COMMANDS["search"].schema)
