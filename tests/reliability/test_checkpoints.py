"""Checkpoints that somebody else has written, with a manifest that fits: going on runs no code of theirs."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import Evil
from tiny_runs import SEARCH_WORDS, CommandLine, run, task_words

from morenas.finetune.checkpoints import MANIFEST, last_checkpoint, seal

STATES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trained.safetensors")


def interrupted_after(step: int) -> Callable[..., None]:
    """A callback that interrupts a fine-tune, its checkpoints written."""

    def stop(args: Any, state: Any, *_: object, **__: object) -> None:
        if state.global_step == step:
            raise KeyboardInterrupt

    return stop


@pytest.fixture(scope="module")
def stopped(tiny_task: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tune that was interrupted after 9 of 12 steps; copy it to work on it."""
    directory = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop = interrupted_after(9)
        patch.setattr("morenas.finetune.loop._Run.on_step_begin", lambda _, *given, **named: stop(*given, **named))
        patch.setattr(sys, "argv", ["morenas.finetune", *task_words(tiny_task, tiny_model, directory), "method=lora"])
        assert run("finetune") == 1
    return directory


def checkpoint(directory: Path) -> Path:
    found = last_checkpoint(directory / "checkpoints" / "finetune")
    assert found is not None
    return found


def sealed_again(folder: Path) -> None:
    """A manifest that fits the files as they are now."""
    info = json.loads((folder / MANIFEST).read_text())["info"]
    (folder / MANIFEST).unlink()
    seal(folder, info)


def refused(command: CommandLine, directory: Path) -> bool:
    """Whether going on is refused by one error, about the checkpoint."""
    done = command("finetune", f"resume={directory}")
    errors = [line for line in done.err.splitlines() if line.startswith("morenas: error:")]
    assert done.status == 2 and len(errors) == 1 and "Traceback" not in done.err, done.err
    return "checkpoint" in errors[0].lower()


def test_a_checkpoint_as_it_was_written_is_gone_on_with(command: CommandLine, stopped: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(stopped, tmp_path / "run"))
    assert {path.name for path in checkpoint(directory).iterdir()} >= {*STATES, "trainer_state.json"}
    sealed_again(checkpoint(directory))
    assert command("finetune", f"resume={directory}").status == 0


@pytest.mark.parametrize("written", ["torch", "pickle"])
@pytest.mark.parametrize("file", STATES)
def test_no_pickle_in_a_checkpoint_of_a_fine_tune_runs(
    file: str, written: str, command: CommandLine, stopped: Path, mark: Path, tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(stopped, tmp_path / "run"))
    path = checkpoint(directory) / file
    if written == "torch":
        torch.save({"state": Evil(mark), "param_groups": []}, path)
    else:
        path.write_bytes(pickle.dumps(Evil(mark)))
    sealed_again(path.parent)
    assert refused(command, directory)
    assert not mark.exists()


def test_no_pickle_of_settings_beside_a_checkpoint_runs(
    command: CommandLine, stopped: Path, mark: Path, tmp_path: Path
) -> None:
    """transformers writes its settings as a pickle, and names of weights that it looks for are many."""
    directory = Path(shutil.copytree(stopped, tmp_path / "run"))
    for name in ("training_args.bin", "pytorch_model.bin", "adapter_model.bin", "scaler.pt", "model.pt"):
        torch.save({"a": Evil(mark)}, checkpoint(directory) / name)
    sealed_again(checkpoint(directory))
    command("finetune", f"resume={directory}")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("trainer_state.json", {"global_step": 10**9}),
        ("trainer_state.json", {"global_step": "x"}),
        ("trainer_state.json", {"nothing": 1}),
        ("trainer_state.json", {"stateful_callbacks": {"os.system": {"args": {}, "attributes": {}}}, "global_step": 1}),
        ("progress.json", {"step": -1}),
        ("progress.json", {"step": 10**9}),
        ("progress.json", {"history": [{"step": 8}]}),
        ("progress.json", {"history": [{"step": 10**9, "accuracy": 1.0}]}),
        ("progress.json", {"loss_since_eval": "x"}),
    ],
    ids=str,
)
def test_a_checkpoint_that_tells_of_something_else_is_refused(
    file: str, change: dict[str, Any], command: CommandLine, stopped: Path, tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(stopped, tmp_path / "run"))
    path = checkpoint(directory) / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    sealed_again(path.parent)
    assert refused(command, directory)


def test_no_pickle_in_the_checkpoint_of_a_search_runs(
    command: CommandLine, tiny_task: Path, tiny_model: Path, mark: Path, tmp_path: Path
) -> None:
    words = [*task_words(tiny_task, tiny_model, tmp_path / "run"), *SEARCH_WORDS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("morenas.finetune.stage.save_adapter", interrupt)
        assert command("search", *words).status == 1
    checkpoints, architecture = tmp_path / "run" / "checkpoints", tmp_path / "run" / "architecture.json"
    for name in ("inherited.safetensors", "search.safetensors"):  # the second is read where there is no architecture
        whole = (checkpoints / name).read_bytes()
        (checkpoints / name).write_bytes(pickle.dumps(Evil(mark)))
        done = command("search", f"resume={tmp_path / 'run'}")
        assert done.status == 2 and name in done.err and not mark.exists()
        (checkpoints / name).write_bytes(whole)
        architecture.unlink(missing_ok=True)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt
