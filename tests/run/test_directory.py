"""A run directory belongs to one run, from its first moment to its last."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import SEARCH_WORDS, CommandLine, read, task_words

from morenas.base.errors import InputError
from morenas.finetune.config import FinetuneRunConfig
from morenas.run.config import Task
from morenas.run.directory import FOLDERS, RunDirectory

CONFIG = FinetuneRunConfig(task=Task(name="t", text_columns=["text"], metrics=["accuracy"]))
CONFIG.model.name_or_path = "demo"


def test_a_run_refused_beside_another_leaves_it_alone(
    command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path
) -> None:
    RunDirectory(tmp_path / "run").begin("search", CONFIG, [])  # it is still reading its data
    done = command("search", *task_words(tiny_task, tiny_model, tmp_path / "run"), *SEARCH_WORDS)
    assert done.status == 2 and "another configuration" in done.err
    assert read(tmp_path / "run" / ".hydra" / "run.json")["config"]["task"]["name"] == "t"


def test_of_two_that_begin_at_once_one_gets_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "run")
    looked: list[Path] = []

    def look_then_let_the_first_begin(self: Path) -> bool:
        if not looked:
            looked.append(self)
            first.begin("search", CONFIG, ["first"])
            return False
        return exists(self)

    exists = Path.exists
    monkeypatch.setattr(Path, "exists", look_then_let_the_first_begin)
    with pytest.raises(InputError, match="resume="):
        second.begin("search", CONFIG, ["second"])
    assert first.saved_overrides() == ["first"]
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".hydra", "checkpoints"}


def test_a_refused_run_keeps_the_folder_it_was_to_lie_in(
    command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    words = task_words(tiny_task, tiny_model, tmp_path / "mine" / "run")
    assert command("search", *words, *SEARCH_WORDS, "search.every=0").status == 2
    assert (tmp_path / "mine").is_dir() and not (tmp_path / "mine" / "run").exists()


@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_in_the_place_of_a_folder_is_refused_before_any_work(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name}: is a file"):
        RunDirectory(tmp_path).begin("search", CONFIG, [])
    assert [path.name for path in tmp_path.iterdir()] == [name]
