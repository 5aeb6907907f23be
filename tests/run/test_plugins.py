"""Code of others on the command line: chosen by name, with settings of its own, checked and told of."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_runs import SEARCH_WORDS, CommandLine, composed, read, task_words

from morenas.base.errors import InputError
from morenas.base.registry import registry
from morenas.run.plugins import named_by
from morenas.run.sections import chosen

PLUGIN = '''
from dataclasses import dataclass

from morenas.base.registry import register
from morenas.supernet.relaxation import Softmax


@dataclass(frozen=True)
class Powered(Softmax):
    """Softmax of a power of what it would be.

    Attributes:
        power: The power.
        steps: When it changes.
    """

    power: float = 2.0
    steps: tuple[int, ...] = (1, 2)

    def mixing_probs(self, logits, temperature, generator):
        return super().mixing_probs(self.power * logits, temperature, generator)


register("relaxation", "powered", Powered)
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module in the folder that commands run from."""
    (tmp_path / "my_relaxations.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    relaxations = registry("relaxation")
    monkeypatch.setattr(relaxations, "_targets", dict(relaxations._targets))
    yield "my_relaxations"
    sys.modules.pop("my_relaxations", None)


def test_modules_are_named_before_anything_is_composed() -> None:
    assert named_by(["+task=demo", "plugins=[a, b.c]", "seed=1"]) == ["a", "b.c"]
    assert named_by(["plugins=['a']"]) == ["a"] and named_by(["+task=demo"]) == []


def test_a_registered_object_is_chosen_with_settings_of_its_own(plugin: str) -> None:
    words = ["+task=demo", f"plugins=[{plugin}]", "relaxation=powered"]
    config = composed("search", [*words, "relaxation.power=3", "relaxation.steps=[4]"])
    made = chosen(config.relaxation)
    assert (type(made).__name__, made.power, made.steps) == ("Powered", 3.0, (4,))
    assert chosen(composed("search", words).relaxation) == type(made)()
    assert composed("search", [*words[:2], "relaxation.name=powered"]).relaxation.name == "powered"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["relaxation.name=powerd"], r"relaxation.name=powerd: .*did you mean 'powered'"),
        (["relaxation=powered", "relaxation.powr=3"], r"relaxation.powr: .* with relaxation=powered \(did you mean"),
        (["relaxation=powered", "relaxation.power=high"], r"relaxation.power: Value 'high' .* Float"),
        (["relaxation=gumbel", "relaxation.power=3"], r"relaxation.power: there is no such key with relaxation=gumbel"),
    ],
)
def test_names_settings_and_types_are_checked(plugin: str, words: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        composed("search", ["+task=demo", f"plugins=[{plugin}]", *words])


def test_a_setting_of_its_own_may_not_have_the_name_of_another_key(plugin: str) -> None:
    @dataclass(frozen=True)
    class Shared:
        sharing: str = "none"

    registry("relaxation").register("shared", Shared)
    with pytest.raises(InputError, match=r"relaxation.name=shared: its setting 'sharing' has the name of another key"):
        composed("search", ["+task=demo", "relaxation=shared"])


def test_help_lists_it_with_what_its_settings_mean(command: CommandLine, plugin: str) -> None:
    words = [f"plugins=[{plugin}]", "relaxation=powered"]
    told = command("search", "--help", *words).out
    assert "auto, dirichlet, gumbel, midpoint, powered, softmax" in told
    assert "relaxation.power" in told and "The power." in told
    assert (
        "relaxation=auto|dirichlet|gumbel|midpoint|powered|softmax"
        in command("search", "--help", "relaxation", *words).out
    )


@pytest.mark.parametrize("words", [["plugins=[no_such_plugin]"], ["--help", "plugins=[no_such_plugin]"]])
def test_a_module_that_is_not_there_is_refused(command: CommandLine, words: list[str]) -> None:
    done = command("search", "+task=demo", *words)
    assert done.status == 2 and "plugins=no_such_plugin: cannot be imported" in done.err


def test_a_resumed_run_loads_its_plugins_again_once_they_are_named_again(
    command: CommandLine, plugin: str, tiny_task: Path, tiny_model: Path, tmp_path: Path
) -> None:
    words = [*task_words(tiny_task, tiny_model, tmp_path / "run"), *SEARCH_WORDS, "search.start=level"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("morenas.finetune.stage.save_adapter", interrupt)
        begun = command("search", *words, f"plugins=[{plugin}]", "relaxation=powered", "relaxation.power=3")
        assert begun.status == 1, begun.err
    go_on = begun.err.rpartition("python -m morenas.search ")[2].split()
    assert go_on == [f"resume={tmp_path / 'run'}", f"'plugins=[{plugin}]'"]
    del registry("relaxation")._targets["powered"], sys.modules[plugin]
    assert "name it too" in command("search", go_on[0]).err
    done = command("search", go_on[0], go_on[1].strip("'"))
    assert done.status == 0, done.err
    searched = read(tmp_path / "run" / "architecture.json")["search"]
    assert searched["relaxation"] == {"name": "powered", "power": 3.0, "steps": [1, 2]}


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt
