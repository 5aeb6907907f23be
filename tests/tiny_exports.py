"""Runs to export, exports in this process, and comparing what they compute."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import plain_peft
import pytest
import torch
from forked import Forked
from peft import PeftModel
from tiny_models import Tiny
from tiny_runs import read, run, task_words
from torch import Tensor, nn

from morenas.export.command import COMMAND
from morenas.models import load_pretrained
from morenas.run.words import run_words

ADAPTER = "adapter_model.safetensors"


@torch.no_grad()
def outputs(model: nn.Module, tiny: Tiny) -> Tensor:
    """Logits of a fixed batch that suits the model."""
    batch = {key: value for key, value in tiny.batch().items() if key != "labels"}
    return model.eval()(**batch).logits.clone()


def difference(one: Tensor, other: Tensor) -> float:
    """The largest, over all entries."""
    return float((one - other).abs().max())


def train(directory: Path, command: str, *words: str) -> Path:
    """A run, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"morenas.{command}", *words, f"hydra.run.dir={directory}"])
        patch.setattr("morenas.run.publish.write_report", lambda directory, results: None)
        assert run(command) == 0
    return directory


def baseline(method: str, tiny_task: Path, model: Path, directory: Path, *settings: str) -> Path:
    """A finished fine-tune by another method."""
    words = [*task_words(tiny_task, model), f"method={method}"]
    kept = [word for word in words if not word.startswith(("training.max_steps", "training.evals"))]
    return train(directory, "finetune", *kept, "training.max_steps=4", "training.evals=1", *settings)


def plain(forked: Forked, exports: list[tuple[str, Path, Path]], tests: Path, folder: Path) -> list[Any]:
    """Accuracy and logits of exports ``(form, folder, base)`` in a process without morenas."""
    jobs = {"exports": [list(map(str, export)) for export in exports], "tests": str(tests), "out": str(folder / "out")}
    (folder / "jobs.json").write_text(json.dumps(jobs))
    done = forked(Path(plain_peft.__file__), folder, str(folder / "jobs.json"))
    assert done.returncode == 0, done.stderr
    return list(read(folder / "out"))


def measured(directory: Path) -> float:
    """Accuracy of a run on its test set."""
    return float(read(directory / "results.json")["methods"][0]["metrics"]["test"]["accuracy"])


def export(*words: object) -> None:
    run_words(COMMAND, [str(word) for word in words])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one error of a refused command."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        export(*words)
    errors = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(errors) == 1 and errors[0].startswith("morenas: error: ")
    return errors[0]


def native(found: Path, tiny_model: Path) -> Any:
    return PeftModel.from_pretrained(load_pretrained(str(tiny_model), 2).model, found / "adapter").eval()
