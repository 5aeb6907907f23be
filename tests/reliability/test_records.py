"""A run's record may be anybody's: going on with the run imports nothing that its user has not named too."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_documents import RESULTS
from tiny_runs import SEARCH_WORDS, CommandLine, composed, record_words, task_words

from morenas.base import consent
from morenas.base.registry import registry
from morenas.compare import table
from morenas.run.directory import RunDirectory
from morenas.run.reading import RECORD, read_finished

EVIL = "not_mine"
CODE = """
from pathlib import Path
(Path(__file__).parent / "code-ran").touch()
def Name(*given, **settings):
    (Path(__file__).parent / "name-called").touch()
"""


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What is there once a module of somebody else's has been imported; the module is one that Python finds."""
    (tmp_path / f"{EVIL}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path / "code-ran"
    sys.modules.pop(EVIL, None)


def begun(run: Path, command: str, words: list[str], changes: dict[str, Any]) -> Path:
    """A run that was begun, and whose record somebody has changed."""
    directory = RunDirectory(run)
    directory.begin(command, composed(command, words), words)
    path = run / RECORD
    document = json.loads(path.read_text())
    for key, value in changes.items():
        *sections, last = key.split(".")
        holder = document["config"]
        for section in sections:
            holder = holder[section]
        holder[last] = value
    path.write_text(json.dumps(document))
    return run


PLACES: dict[str, tuple[str, dict[str, Any]]] = {
    "plugins": ("search", {"plugins": [EVIL]}),
    "relaxation": ("search", {"relaxation.name": f"{EVIL}:Name"}),
    "hypergradient": ("search", {"hypergradient.name": f"{EVIL}:Name", "search.start": "level"}),
    "selection": ("search", {"selection.name": f"{EVIL}:Name"}),
    "start": ("search", {"search.start": f"{EVIL}:Name"}),
    "guard": ("search", {"search.stop": f"{EVIL}:Name", "search.start": "level"}),
    "cost": ("search", {"budget.cost": f"{EVIL}:Name", "budget.value": 5, "budget.fraction": None}),
    "source": ("search", {"task.source": f"{EVIL}:Name", "task.data_dir": None}),
    "metric": ("search", {"task.metrics": [f"{EVIL}:Name"]}),
    "metric to choose by": ("search", {"task.select_metric": f"{EVIL}:Name"}),
    "tracker": ("search", {"tracking.name": f"{EVIL}:Name"}),
    "tracker with settings": ("search", {"tracking.name": f"{EVIL}:Name", "tracking.args": ["a"]}),
    "method": ("finetune", {"method.name": f"{EVIL}:Name"}),
    "render": ("records", {"task.render": f"{EVIL}:Name", "task.source": "hub", "task.hub_path": "a/b"}),
    "part of a mix": ("records", {"task.mix": {"a": {"source": f"{EVIL}:Name"}, "b": {"source": "files"}}}),
}
"""Where a record may name a module, to the command and what is changed in its record."""


def words_of(kind: str, task: Path, model: Path, records: Path, llama: Path) -> tuple[str, list[str]]:
    if kind == "records":
        return "finetune", [*record_words(records, llama), "method=lora"]
    own = SEARCH_WORDS if kind == "search" else ["method=lora"]
    return kind, [*task_words(task, model), *own]


@pytest.mark.parametrize("place", PLACES)
def test_no_module_that_a_record_names_is_imported(
    place: str,
    command: CommandLine,
    evil: Path,
    tiny_task: Path,
    tiny_model: Path,
    records: Path,
    llama: Path,
    tmp_path: Path,
) -> None:
    kind, changes = PLACES[place]
    name, words = words_of(kind, tiny_task, tiny_model, records, llama)
    run = begun(tmp_path / "run", name, words, changes)
    done = command(name, f"resume={run}")
    assert done.status == 2 and len(done.err.splitlines()) == 1, done.err
    assert f"resume={run}: a record there sets " in done.err and f"resume={run} 'plugins=[{EVIL}]'" in done.err
    assert not evil.exists()


def test_a_module_that_its_user_names_too_is_imported(
    command: CommandLine, evil: Path, tiny_task: Path, tiny_model: Path, tmp_path: Path
) -> None:
    words = [*task_words(tiny_task, tiny_model), *SEARCH_WORDS]
    run = begun(tmp_path / "run", "search", words, {"selection.name": f"{EVIL}:Name", "task.data_dir": "/nowhere"})
    done = command("search", f"resume={run}", f"plugins=[{EVIL}]")
    assert "/nowhere" in done.err and evil.exists()


def test_consent_is_for_the_modules_named_alone(
    command: CommandLine, evil: Path, tiny_task: Path, tiny_model: Path, tmp_path: Path
) -> None:
    words = [*task_words(tiny_task, tiny_model), *SEARCH_WORDS]
    run = begun(tmp_path / "run", "search", words, {"plugins": [EVIL, "colorsys"], "selection.name": "os:abort"})
    done = command("search", f"resume={run}", "plugins=[colorsys]")
    assert done.status == 2 and f"'plugins=[colorsys,{EVIL}]'" in done.err and not evil.exists()
    done = command("search", f"resume={run}", f"plugins=[colorsys,{EVIL}]")
    assert done.status == 2 and "sets selection.name=os:abort, and importing os runs code" in done.err


def test_a_module_of_an_installed_plug_in_needs_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    point = EntryPoint("mine", "my_package.doors", "morenas.plugins")
    monkeypatch.setattr("morenas.base.registry.entry_points", lambda group: [point])
    with consent.only("resume=run", "record", []):
        registry("selection").check("my_package.doors:Mine")
        with pytest.raises(ValueError, match=r"importing my_package\.others runs code"):
            registry("selection").check("my_package.others:Mine")
    registry("selection").check("my_package.others:Mine")


def test_export_and_comparison_import_nothing_that_a_record_names(
    evil: Path, tiny_task: Path, tiny_model: Path, tmp_path: Path
) -> None:
    words = [*task_words(tiny_task, tiny_model), *SEARCH_WORDS]
    run = begun(tmp_path / "run", "search", words, {"plugins": [EVIL], "tracking.name": f"{EVIL}:Name"})
    (run / "adapter").mkdir()
    named = {**RESULTS, "format": "morenas.results/1", "methods": [{**RESULTS["methods"][0], "name": f"{EVIL}:Name"}]}
    (run / "results.json").write_text(json.dumps(named))
    assert read_finished(run).method == f"{EVIL}:Name"
    assert f"{EVIL}:Name" in table.to_markdown(table.compare([run]))
    assert not evil.exists()
