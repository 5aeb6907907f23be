"""Whole runs of the command line in this process, on a tiny model and a tiny task in local files."""

from __future__ import annotations

import gc
import importlib
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import remembered
from hydra._internal.hydra import Hydra
from tiny_models import WORDS

from morenas.finetune import phase as finetune
from morenas.run.composing import compose_words, to_config
from morenas.run.launch import launch, prepare
from morenas.search import phase as search

COMMANDS = {"search": search.COMMAND, "finetune": finetune.COMMAND}
remembered.keep()


@dataclass
class Outcome:
    """How a command ended: its exit status, and what it printed."""

    status: int
    out: str
    err: str


class CommandLine:
    """Runs ``python -m morenas.<command>`` without a new process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capfd = monkeypatch, capfd

    def __call__(self, command: str, *words: str) -> Outcome:
        self.monkeypatch.setattr(sys, "argv", [f"morenas.{command}", *map(str, words)])
        if not any(word.startswith("hydra.mode") for word in words):
            # Hydra composes everything twice, the first time to look for hydra.mode.
            self.monkeypatch.setattr(Hydra, "get_mode", lambda *_, **__: None)
        self.capfd.readouterr()
        status = run(command)
        out, err = self.capfd.readouterr()
        return Outcome(status, out, err)


def run(command: str) -> int:
    """Run a command on ``sys.argv``; its exit status."""
    _leave_the_libraries_alone()
    try:
        launch(COMMANDS[command])
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def composed(command: str, words: Sequence[str]) -> Any:
    """The config that words of a command line give."""
    schema = COMMANDS[command].schema
    prepare(command, schema, words)
    return to_config(compose_words(command, words), schema)


def _leave_the_libraries_alone() -> None:
    """Each phase of a run frees what the one before left: looking through all of torch would take longer than a run."""
    importlib.import_module("morenas.run.session")
    _freeze(len(sys.modules) // 100)


@cache
def _freeze(hundreds_of_modules: int) -> None:
    """Once more where many modules have been imported since."""
    gc.collect()
    gc.freeze()


def write_task(directory: Path, rows: int = 160) -> Path:
    """Sentences of which half hold the word "cat", with the label that says so; train and validation files."""
    rng = random.Random(0)
    directory.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", rows), ("validation", 40)):
        lines = []
        for index in range(count):
            words = [rng.choice([word for word in WORDS if word != "cat"]) for _ in range(rng.randint(4, 9))]
            if index % 2:
                words[rng.randrange(len(words))] = "cat"
            lines.append(json.dumps({"text": f"{' '.join(words)}", "label": index % 2}))
        (directory / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return directory


def write_records(directory: Path, rows: int = 48, tests: int = 12, seed: int = 0) -> Path:
    """Sentences that are "red" where they hold the word "cat", else "blue", as records; train and test files."""
    rng = random.Random(seed)
    directory.mkdir(parents=True, exist_ok=True)
    others = [word for word in WORDS if word not in ("cat", "red", "blue")]
    for split, count in (("train", rows), ("test", tests)):
        lines = []
        for index in range(count):
            words, answer = rng.choices(others, k=rng.randint(2, 9)), ("red", "blue")[index % 2]
            if answer == "red":
                words[rng.randrange(len(words))] = "cat"
            record = {"instruction": " ".join(words), "output": f"it is {answer}", "answer": answer}
            lines.append(json.dumps(record))
        (directory / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return directory


def task_words(data: Path, model: Path, run_dir: Path | None = None) -> list[str]:
    """Command-line words of a run of a few steps on that task."""
    words = [
        "+task=files",
        f"task.data_dir={data}",
        "task.text_columns=[text]",
        "model=local",
        f"model.name_or_path={model}",
        "training.learning_rate=5e-3",
        "training.batch_size=8",
        "training.max_steps=12",
        "training.evals=3",
        "device=cpu",
        "threads=1",
        "tracking=local",
    ]
    return words if run_dir is None else [*words, f"hydra.run.dir={run_dir}"]


def record_words(data: Path, model: Path, run_dir: Path | None = None, task: str = "commonsense/boolq") -> list[str]:
    """Command-line words of a run of a few steps on such records, for a language model."""
    words = [
        f"+task={task}",
        f"task.data_dir={data}",
        "task.max_new_tokens=4",
        "task.max_length=40",
        "task.prompt=plain",
        *(['task.continuation="it is {answer}"'] if task.startswith("commonsense") else []),
        "model=local",
        f"model.name_or_path={model}",
        "training.learning_rate=1e-2",
        "training.batch_size=8",
        "training.max_steps=4",
        "training.evals=2",
        "device=cpu",
        "threads=1",
        "tracking=local",
    ]
    return words if run_dir is None else [*words, f"hydra.run.dir={run_dir}"]


SEARCH_WORDS = [
    "space.nblocks=[1,2,4]",
    "space.ranks=[0,1,2]",
    "budget.lora_rank=4",
    "budget.fraction=0.3",
    "search.steps=10",
    "search.checkpoint_every=2",
]
"""A search of a few steps in a small space."""


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text())
