"""Every example of docs/extending.md is short, complete and works as it is written."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hub_folder import hub_folder
from tiny_models import shallow
from tiny_runs import COMMANDS, SEARCH_WORDS, CommandLine, read, task_words
from tiny_search import SETTINGS, search

from morenas import Budget, build_space, find_head, target_linears
from morenas.base.registry import BUILTIN, REGISTRIES, registry
from morenas.run.composing import known_keys
from morenas.search.length import passes_beside

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
EXAMPLE = re.compile(
    r'^```python title="(?P<module>\w+)\.py"\n(?P<code>.*?)^```\n\n'
    r"    python -m morenas\.(?P<command>\w+) (?P<words>.*?)$",
    re.MULTILINE | re.DOTALL,
)
LONGEST = 15  # lines that are not blank: where blank ones stand is the formatter's business
FIELDS = {
    "relaxation": "relaxation",
    "hypergradient": "hypergradient",
    "selection": "selection",
    "start": "start",
    "guard": "stop",
    "cost": "cost",
}
"""Door to the argument that takes what it brings: of ``SearchSettings``, of ``build_space`` for a cost."""


@dataclass(frozen=True)
class Example:
    """A module, the command that uses it, and what it registers."""

    module: str
    code: str
    command: str
    words: tuple[str, ...]

    @property
    def registers(self) -> tuple[str, str]:
        """Door and name."""
        kind, name = re.findall(r'^register\("(\w+)", "(\w+)"', self.code, re.MULTILINE)[0]
        return kind, name


def examples() -> dict[str, Example]:
    """By door."""
    found = [
        Example(m["module"], m["code"], m["command"], tuple(shlex.split(m["words"])))
        for m in EXAMPLE.finditer(PAGE.read_text())
    ]
    return {example.registers[0]: example for example in found}


EXAMPLES = examples()
every_example = pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doors: Callable[[str, str, Any], None]) -> Path:
    """A folder to work in that holds all modules; what they register ends with the test."""
    for example in EXAMPLES.values():
        (tmp_path / f"{example.module}.py").write_text(marked(example.code))
        monkeypatch.delitem(sys.modules, example.module, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def marked(code: str) -> str:
    """The code, with a note in ``CALLED`` of every function that is called."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.body.insert(0, ast.parse(f"CALLED.add({node.name!r})").body[0])
    return f"CALLED = set()\n{ast.unparse(tree)}\n"


def called(example: Example) -> set[str]:
    """Functions of the example that were called since its module was imported."""
    found: set[str] = vars(sys.modules[example.module])["CALLED"]
    return found


def functions(code: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)}


def test_every_door_has_an_example() -> None:
    assert EXAMPLES.keys() == BUILTIN.keys() == REGISTRIES.keys()


def test_the_table_names_every_door_with_its_key_and_what_an_object_is() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([\w.]+)=` \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert [door for door, _, _ in rows] == list(EXAMPLES)
    keys = {key for command in COMMANDS.values() for key in known_keys(command.schema)}
    assert {key for _, key, _ in rows} <= keys
    for protocol in re.findall(r"`(morenas\.[\w.]+)`", " ".join(said for _, _, said in rows)):
        module, _, name = protocol.rpartition(".")
        assert hasattr(importlib.import_module(module), name), protocol


def test_an_object_is_given_from_python(folder: Path) -> None:
    (block,) = re.findall(r'^```python title="From Python"\n(.*?)^```$', PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["settings"].relaxation.sharpness == 2.0


@every_example
def test_an_example_is_short(example: Example) -> None:
    assert sum(bool(line.strip()) for line in example.code.splitlines()) <= LONGEST


def short_run(example: Example, tmp_path: Path, task: Path, model: Path) -> list[str]:
    """The words of its command, with the demo's task and model replaced by tiny ones, and few steps."""
    own = [word for word in example.words if word != "+task=demo"]
    few = ["training.max_steps=4", "training.evals=1", "device=cpu", "threads=1", "tracking=local"]
    steps = SEARCH_WORDS if example.command == "search" else []
    if "+task=demo" in example.words:
        own = [*task_words(task, model), *own]
        few = few[:2]
    return [*own, *few, *steps, f"hydra.run.dir={tmp_path / 'run'}"]


@every_example
def test_an_example_works_by_its_command(
    example: Example,
    command: CommandLine,
    folder: Path,
    tiny_task: Path,
    tiny_model: Path,
    llama: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = short_run(example, folder, tiny_task, tiny_model)
    if "task.hub_path=<owner/name>" in words:
        rows = [{"riddle": f"what is {number}", "solution": number % 2} for number in range(40)]
        data = hub_folder(folder / "hub", {"train": rows[10:], "test": rows[:10]}, monkeypatch)
        words[words.index("task.hub_path=<owner/name>")] = f"task.hub_path={data}"
        words[words.index("model.name_or_path=<folder>")] = f"model.name_or_path={llama}"
    done = command(example.command, *words)
    assert done.status == 0, done.err
    assert called(example) == functions(example.code)
    kind, name = example.registers
    assert name in (folder / "run" / ".hydra" / "config.yaml").read_text()
    if kind == "metric":
        assert name in read(folder / "run" / "results.json")["methods"][0]["metrics"]["test"]


@pytest.mark.parametrize("kind", FIELDS)
def test_an_example_works_as_an_object_from_python(kind: str, folder: Path) -> None:
    example = EXAMPLES[kind]
    __import__(example.module)
    made = registry(kind).build(example.registers[1])
    chosen: dict[str, Any] = {FIELDS[kind]: made}
    model, cost = shallow(), chosen.pop("cost", "params")
    space = build_space(target_linears(model, exclude=find_head(model)), [1, 2, 4], [0, 1, 2], cost=cost)
    settings = replace(SETTINGS, sharing="per_nblocks", **chosen)
    outcome = search(model, settings, space=space, budget=Budget.resolve(space, lora_rank=2, fraction=0.5))
    assert outcome.params > 0
    assert passes_beside(settings) >= 0  # what a run of a given length asks of it
    assert called(example) == functions(example.code)
