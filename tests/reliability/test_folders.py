"""Folders of configs may be anybody's: what a YAML file names does not run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tiny_runs import CommandLine

CODE = """
import os
from pathlib import Path
def run(**settings):
    (Path(__file__).parent / "code-ran").touch()
    return __import__("logging").Formatter()
if os.environ.get("IMPORTING_RUNS"):
    run()
"""
FILES = {
    "callbacks": "hydra: {callbacks: {mine: {_target_: not_mine.run}}}",
    "job_logging": 'hydra: {job_logging: {version: 1, formatters: {mine: {"()": not_mine.run}}}}',
    "hydra_logging": 'hydra: {hydra_logging: {version: 1, formatters: {mine: {"()": not_mine.run}}}}',
    "job.env_set": "hydra: {job: {env_set: {MORENAS_TEST_VARIABLE: set}}}",
    "launcher": "defaults: [{override /hydra/launcher: mine}]",
    "plugins": "plugins: [not_mine]",
    "tracker": "tracking: {name: 'not_mine:run'}",
    "metric": "task: {select_metric: 'not_mine:run'}",
}
"""What a YAML file sets, to its content."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of configs, from which commands run too."""
    (tmp_path / "not_mine.py").write_text(CODE)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "other.yaml").write_text("# @package _global_\nseed: 7\n")
    (tmp_path / "hydra" / "launcher").mkdir(parents=True)
    (tmp_path / "hydra" / "launcher" / "mine.yaml").write_text("_target_: not_mine.run\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("not_mine", None)
    os.environ.pop("MORENAS_TEST_VARIABLE", None)


OTHER_WAYS = [("job_logging", "sweep"), ("plugins", "sweep"), ("callbacks", "config-dir"), ("metric", "config-dir")]


@pytest.mark.parametrize(("key", "way"), [*((key, "searchpath") for key in FILES), *OTHER_WAYS])
def test_nothing_that_a_yaml_file_names_runs(
    key: str, way: str, command: CommandLine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key in ("plugins", "tracker", "metric"):
        monkeypatch.setenv("IMPORTING_RUNS", "1")
    (folder / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{FILES[key]}\n")
    place = ["--config-dir", str(folder)] if way == "config-dir" else [f"hydra.searchpath=[file://{folder}]"]
    words = ["+task=demo", "experiment=other,mine" if way == "sweep" else "experiment=mine", "threads=0"]
    done = command("search", *(["-m"] if way == "sweep" else []), *place, *words)
    assert done.status == 2 and "YAML file" in done.err, done.err
    assert not (folder / "code-ran").exists() and "MORENAS_TEST_VARIABLE" not in os.environ
    assert way == "sweep" or not (folder / "runs").exists()


def test_other_settings_of_hydra_s_may_stand_in_a_yaml_file(command: CommandLine, folder: Path) -> None:
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\nhydra: {sweep: {subdir: mine}}\nseed: 7\n")
    done = command("search", f"hydra.searchpath=[file://{folder}]", "+task=demo", "experiment=mine", "--cfg", "all")
    assert done.status == 0 and "subdir: mine" in done.out and "seed: 7" in done.out


def test_what_the_command_line_names_too_is_imported(
    command: CommandLine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMPORTING_RUNS", "1")
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\nplugins: [not_mine]\n")
    words = [f"hydra.searchpath=[file://{folder}]", "+task=demo", "experiment=mine", "model.name_or_path=/nowhere"]
    done = command("search", *words, "plugins=[not_mine]")
    assert "/nowhere" in done.err and (folder / "code-ran").exists()
    sys.modules.pop("not_mine")
    (folder / "code-ran").unlink()
    assert "not_mine" in command("search", *words, "task.select_metric=not_mine:run").err
    assert (folder / "code-ran").exists()


def test_our_own_configs_cannot_be_replaced(command: CommandLine, folder: Path) -> None:
    for option in ("--config-path", "-cp", "--config-name", "-cn"):
        done = command("search", option, str(folder), "+task=demo")
        assert done.status == 2 and f"{option}: configs of your own stand beside" in done.err


@pytest.mark.slow
def test_with_python_p_nothing_of_the_current_folder_is_imported(folder: Path) -> None:
    """As docs/promises.md says; without it Python looks there first, whatever the program."""
    for name in ("hydra", "omegaconf", "jsonschema", "numpy", "torch", "not_mine"):
        (folder / f"{name}.py").write_text("from pathlib import Path\n(Path(__file__).parent / 'code-ran').touch()\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    def run(*words: str, options: Sequence[str] = ("-P",)) -> str:
        command = [sys.executable, *options, "-m", *words]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True).stderr

    assert "threads" in run("morenas.search", "+task=demo", "threads=0")
    assert "plugins=not_mine: cannot be imported" in run("morenas.search", "+task=demo", "plugins=[not_mine]")
    assert "holds no results.json" in run("morenas.compare", ".")
    assert not (folder / "code-ran").exists()
    run("morenas.compare", ".", options=())
    assert (folder / "code-ran").exists()  # the trap works
