"""A run that was cut off goes on, with what it began with and nothing else; ``reliability/`` holds the kills."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from tiny_models import save_tiny, save_tiny_causal
from tiny_runs import SEARCH_WORDS, CommandLine, read, record_words, task_words, write_records, write_task

from morenas.base.files import sha256
from morenas.run.directory import RunDirectory


def test_cut_off_while_its_report_is_written_a_run_still_gets_one(
    reporting_command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path
) -> None:
    words = [*task_words(tiny_task, tiny_model, tmp_path / "run"), "method=head"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("morenas.run.publish.write_report", interrupt)
        assert reporting_command("finetune", *words).status == 1
    done = reporting_command("finetune", f"resume={tmp_path / 'run'}")
    assert done.status == 0, done.err
    assert (tmp_path / "run" / "report.html").exists() and (tmp_path / "run" / "results.json").exists()


def test_a_run_that_another_process_is_at_work_on_is_left_alone(
    command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path
) -> None:
    words = [*task_words(tiny_task, tiny_model, tmp_path / "run"), *SEARCH_WORDS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("morenas.search.phase.search", interrupt)
        assert command("search", *words).status == 1
    with RunDirectory(tmp_path / "run").held():
        done = command("search", f"resume={tmp_path / 'run'}")
        assert done.status == 2
        assert "another process is at work" in done.err
    assert command("search", f"resume={tmp_path / 'run'}").status == 0


def test_a_moved_run_goes_on(command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path) -> None:
    words = [*task_words(tiny_task, tiny_model, tmp_path / "here"), *SEARCH_WORDS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("morenas.search.phase.finetune_found", interrupt)
        assert command("search", *words).status != 0
    assert (tmp_path / "here" / "architecture.json").exists()
    (tmp_path / "here").rename(tmp_path / "there")
    done = command("search", f"resume={tmp_path / 'there'}")
    assert done.status == 0, done.err
    results = read(tmp_path / "there" / "results.json")
    assert results["status"] == "complete"
    assert "+task=files" in results["command"] and "resume" not in results["command"]


@pytest.mark.parametrize("what", ["data", "model"])
def test_a_run_goes_on_with_nothing_but_what_it_began_with(command: CommandLine, tmp_path: Path, what: str) -> None:
    data, model = write_task(tmp_path / "data"), save_tiny("bert", tmp_path / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("morenas.search.phase.finetune_found", interrupt)
        assert command("search", *task_words(data, model, tmp_path / "run"), *SEARCH_WORDS).status != 0
    if what == "data":  # what was searched on becomes the test set
        train = (data / "train.jsonl").read_text().splitlines()
        (data / "validation.jsonl").write_text("\n".join(train[:40]))
    else:
        save_tiny("bert", model, seed=1)
    done = command("search", f"resume={tmp_path / 'run'}")
    assert done.status == 2 and what in done.err and "began with" in done.err
    assert (tmp_path / "run" / "architecture.json").exists()


class Killed(BaseException):
    """Neither an error nor an interruption: nothing may catch it."""


def killed_after(module: str, name: str, patch: pytest.MonkeyPatch) -> None:
    """Kill what calls a function, as soon as that is through."""
    whole = getattr(importlib.import_module(module), name)

    def call(*given: object) -> None:
        whole(*given)
        raise Killed

    patch.setattr(sys.modules[module], name, call)


def test_a_language_model_s_run_goes_on_bit_for_bit(command: CommandLine, tmp_path: Path) -> None:
    model, data = save_tiny_causal(tmp_path / "gpt2", "gpt2", num_hidden_layers=1), write_records(tmp_path / "records")

    def outcome(name: str, *kills: tuple[str, str]) -> tuple[object, ...]:
        words = [*record_words(data, model, tmp_path / name), *SEARCH_WORDS, "search.steps=6"]
        for place in kills:
            with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
                killed_after(*place, patch)
                command("search", *words)
            words = [f"resume={tmp_path / name}"]
        done = command("search", *words)
        assert done.status == 0, done.err
        architecture, results = (read(tmp_path / name / f"{part}.json") for part in ("architecture", "results"))
        (row,) = results["methods"]
        files = ("adapter/adapter_model.safetensors", "search/trajectory.npz")
        return architecture, {**row, "seconds": 0}, *(sha256(tmp_path / name / file) for file in files)

    search = (("morenas.search.state", "save_tensors"), ("morenas.search.files", "write_trajectory"))
    finetune = (("morenas.finetune.loop", "keep_only"), ("morenas.finetune.stage", "save_adapter"))
    assert outcome("killed", search[0], *search, *finetune) == outcome("whole")


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt
