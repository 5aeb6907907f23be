"""A whole search beside a whole LoRA fine-tune, by the commands that users type, each in a process of its own."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from morenas.base.errors import InputError, RunError
from morenas.run.results import read_results
from speed.rows import MEMORY, Case, Row, compared
from speed.settings import Bench

SECTION = "runs"
ROOT = Path(__file__).resolve().parents[2]
LORA = "lora r=8"
AS_MANY = "seconds, as many weight steps"
DEFAULTS = "seconds, default settings"

Phases = dict[str, dict[str, Any]]
"""What a run measured of each of its phases, by name."""


def run(bench: Bench) -> Iterator[Row]:
    """Every kind of run once a round, in a shuffled order."""
    kinds, shuffle = commands(bench), random.Random(bench.seed).shuffle
    order, done = list(kinds), []
    for _ in range(bench.run_pairs):
        shuffle(order)
        done.append({kind: phases_of(kinds[kind], bench) for kind in order})
    task = "demo" if bench.glue is None else "glue/mrpc"
    yield from judged({"task": task, "steps": bench.run_steps}, done)


def commands(bench: Bench) -> dict[str, list[str]]:
    """The command lines, without what they share: final steps of a default search are its fine-tune's."""
    final = f"training.max_steps={bench.run_steps}"
    return {
        "search": ["search", final, "compare=none"],
        "long search": ["search", f"search.steps={bench.run_steps}", "training.max_steps=1", "compare=none"],
        "lora": ["finetune", final, "method=lora", "method.rank=8"],
    }


def phases_of(command: list[str], bench: Bench) -> Phases:
    """Run a command to its end.

    Raises:
        InputError: If it refuses its input.
        RunError: If it fails.
    """
    name, *words = command
    with tempfile.TemporaryDirectory() as folder:
        words = [*words, *shared_words(bench), f"hydra.run.dir={folder}/run"]
        ended = subprocess.run(
            [sys.executable, "-m", f"morenas.{name}", *words], cwd=ROOT, capture_output=True, text=True
        )
        if ended.returncode:
            last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
            refusal = InputError if ended.returncode == 2 else RunError
            raise refusal(f"morenas.{name} {' '.join(words)} ended with status {ended.returncode}: {last}")
        results = read_results(Path(folder) / "run" / "results.json")
    return {phase["name"]: phase for phase in results["phases"]}


def shared_words(bench: Bench) -> list[str]:
    """Task, model, machine. A search evaluates nothing, so evaluation would flatter it: one, at the end, on next to
    nothing."""
    where = [f"device={bench.device}", f"threads={bench.threads}", f"seed={bench.seed}", "tracking=local"]
    how = [
        "training.evals=1",
        f"task.select={0.1 if bench.quick else 0.01}",
        f"training.bf16={str(bench.dtype == torch.bfloat16).lower()}",
    ]
    return [*task_words(bench), *where, *how]


def task_words(bench: Bench) -> list[str]:
    """MRPC with a MiniLM from local files, or the packaged demo."""
    if bench.glue is None:
        return ["+task=demo", *(["task.max_examples=200"] if bench.quick else [])]
    assert bench.minilm is not None
    return [
        "+task=glue/mrpc",
        f"task.data_dir={bench.glue.resolve()}",
        "model=local",
        f"model.name_or_path={bench.minilm.resolve()}",
    ]


def judged(case: Case, done: list[dict[str, Phases]]) -> list[Row]:
    """Seconds and memory of the search beside those of the fine-tune."""
    lora = [1e3 * phases["lora"]["finetune"]["seconds"] for phases in done]
    long = [1e3 * phases["long search"]["search"]["seconds"] for phases in done]
    both = [1e3 * (phases["search"]["search"]["seconds"] + phases["search"]["finetune"]["seconds"]) for phases in done]
    peaks = {
        "search": [float(phases["long search"]["search"]["peak_memory_bytes"]) for phases in done],
        LORA: [float(phases["lora"]["finetune"]["peak_memory_bytes"]) for phases in done],
    }
    return [
        *compared(SECTION, case, AS_MANY, {"search": long, LORA: lora}, [LORA]),
        *compared(SECTION, case, DEFAULTS, {"search + final fine-tune": both, LORA: lora}, [LORA]),
        *compared(SECTION, case, MEMORY, peaks, [LORA]),
    ]
