"""A package of someone else's brings in a relaxation, a hypergradient, a selection, a metric, a tracker and a cost."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from forked import Forked
from tiny_models import tiny_classifier
from tiny_runs import SEARCH_WORDS, CommandLine, read, task_words
from tiny_search import TinyBatches

from morenas import Budget, SearchSettings, build_space, search_architecture, target_linears
from morenas.base.registry import REGISTRIES, registry
from morenas.models.heads import find_head

HERE = Path(__file__).parent
PACKAGE = "morenas_outside"
CHOSEN = {
    "relaxation": "sparsemax",
    "hypergradient": "clipped",
    "selection": "thrifty",
    "metric": "balanced_accuracy",
    "tracker": "lines",
    "cost": "padded",
}


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package can be imported, and is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(HERE))
    for known in REGISTRIES.values():
        monkeypatch.setattr(known, "_targets", dict(known._targets))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture
def package(outside: None) -> ModuleType:
    return importlib.import_module(PACKAGE)


@pytest.mark.parametrize("kind", CHOSEN)
def test_what_is_registered_is_there_by_name(package: ModuleType, kind: str) -> None:
    assert CHOSEN[kind] in registry(kind).names()
    assert registry(kind).chosen_by(registry(kind).build(CHOSEN[kind])) == CHOSEN[kind]


def search(**settings: Any) -> Any:
    """A search of a tiny classifier by Python alone."""
    model = tiny_classifier()
    cost = settings.pop("cost", "params")
    space = build_space(target_linears(model, ["query", "value"]), [1, 2], [0, 1, 2, 3], cost=cost)
    budget = Budget.resolve(space, lora_rank=4, fraction=0.5)
    return search_architecture(
        model,
        TinyBatches(0),
        TinyBatches(1000),
        space,
        budget,
        SearchSettings(steps=6, warmup=2, start="level", sharing="full", learning_rate=5e-3, **settings),
        find_head(model),
    )


@pytest.mark.parametrize("by", ["name", "object"])
def test_python_takes_each_by_name_and_as_an_object(package: ModuleType, by: str) -> None:
    doors = ("relaxation", "hypergradient", "selection", "cost")
    found = search(**{kind: CHOSEN[kind] if by == "name" else registry(kind).build(CHOSEN[kind]) for kind in doors})
    assert torch.isfinite(found.logits).all() and found.architecture.budget["cost"]


def test_settings_of_an_object_change_what_it_does(package: ModuleType) -> None:
    sparse, less = (registry("relaxation").build("sparsemax", power=power) for power in (9.0, 0.1))
    logits, generator = torch.tensor([[0.5, 0.3, 0.1]]), torch.Generator()
    assert sparse.mixing_probs(logits, 1.0, generator).tolist() == [[1.0, 0.0, 0.0]]
    probs = less.mixing_probs(logits, 1.0, generator)
    assert (probs > 0).all() and probs.sum().item() == pytest.approx(1)
    thrifty = registry("selection").build("thrifty", share=0.2)
    assert search(selection=thrifty).params < search(selection="thrifty").params


WORDS = [
    f"plugins=[{PACKAGE}]",
    "relaxation=sparsemax",
    "relaxation.power=0.2",
    "hypergradient=clipped",
    "hypergradient.norm=0.5",
    "selection=thrifty",
    "selection.share=0.8",
    "task.metrics=[balanced_accuracy,accuracy]",
    "tracking=lines",
    "tracking.file=told.txt",
    "budget.cost=padded",
    "budget.multiple=2",
    "search.start=level",
]
"""All of them on a command line, with settings of their own."""


def test_a_whole_run_is_made_of_them_on_the_command_line(
    command: CommandLine, outside: None, tiny_task: Path, tiny_model: Path, tmp_path: Path
) -> None:
    words = [word for word in task_words(tiny_task, tiny_model, tmp_path / "run") if word != "tracking=local"]
    done = command("search", *words, *SEARCH_WORDS, *WORDS)
    assert done.status == 0, done.err
    run = tmp_path / "run"
    searched, results = read(run / "architecture.json")["search"], read(run / "results.json")
    assert searched["relaxation"] == {"name": "sparsemax", "power": 0.2}
    assert searched["hypergradient"] == {"name": "clipped", "norm": 0.5}
    assert searched["selection"] == {"name": "thrifty", "share": 0.8}
    assert results["budget"]["cost"] == {"name": "padded", "multiple": 2}
    assert results["metric"] == "balanced_accuracy"
    assert results["methods"][0]["metrics"]["test"].keys() == {"balanced_accuracy", "accuracy"}
    lines = (run / "lines" / "told.txt").read_text().splitlines()
    assert lines[0].startswith("open files-") and "search 1 search/lower_loss" in " ".join(lines)
    assert lines[-2:] == ["adapter adapter", "done"] and any(line.startswith("metric ") for line in lines)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("relaxation=sparsmax", "did you mean 'sparsemax'"),
        ("selection.shar=1", "selection.shar: .* with selection=thrifty .did you mean 'selection.share'"),
        ("hypergradient.norm=large", "hypergradient.norm: Value 'large' .* Float"),
        ("budget.cost=paded", "budget.cost=paded: .*did you mean 'padded'"),
        ("budget.multipel=3", "budget.multipel: there is no such key with budget.cost=padded .did you mean"),
        ("tracking.fil=x", "tracking.fil: there is no such key with tracking=lines .did you mean 'tracking.file'"),
        ("task.metrics=[balanced_acuracy]", "did you mean 'balanced_accuracy'"),
    ],
)
def test_names_and_settings_are_checked(command: CommandLine, outside: None, word: str, said: str) -> None:
    key = word.split("=")[0]
    words = [other for other in WORDS if other.split("=")[0] != key]
    done = command("search", "+task=demo", *words, word)
    assert done.status == 2 and done.err.count("\n") == 1
    assert re.search(said, done.err), done.err


def test_help_lists_names_and_settings(outside: None, command: CommandLine) -> None:
    told = " ".join(command("search", "--help", *WORDS).out.split())
    for name in CHOSEN.values():
        assert name in told
    for key, meaning in (
        ("relaxation.power 0.2", "The logits are multiplied by it"),
        ("budget.multiple 2", "Ranks are"),
    ):
        assert f"{key}" in told and meaning in told


def test_an_installed_package_needs_no_word(forked: Forked, tmp_path: Path) -> None:
    """Its entry point is found; the process has nothing but the two packages and what they need."""
    info = tmp_path / "morenas_outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: morenas-outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[morenas.plugins]\noutside = {PACKAGE}\n")
    program = tmp_path / "program.py"
    program.write_text("import runpy\n\nrunpy.run_module('morenas.search', run_name='__main__')\n")
    words = ["--help", "relaxation", "relaxation=sparsemax"]
    done = forked(program, tmp_path, *words, path=[Path(__file__).parents[2], HERE, tmp_path])
    assert done.returncode == 0, done.stderr
    assert "sparsemax" in done.stdout and "relaxation.power" in done.stdout
