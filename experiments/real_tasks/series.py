"""Run the rows of the real-task table that are missing, one after another, and keep each as soon as it is there.

    python experiments/real_tasks/series.py --glue <folder> --models <folder> --runs <folder> [--methods lora-r1,…]

A row is one training: model, task, method, learning rate and seed. ``protocol.md`` says in what order, and how a
learning rate is chosen. What ``rows.json`` holds is not run again; an interrupted row is resumed from its checkpoint.
Several of these may run beside each other on one ``rows.json``.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
SEEDS = range(5)

MODELS = {
    "minilm-l3": "paraphrase-MiniLM-L3-v2-fp16",
    "minilm-l6": "all-MiniLM-L6-v2-fp16",
}


class Task(NamedTuple):
    """How a task is trained here, and the name of its main metric.

    Attributes:
        epochs: Passes of the final fine-tune, enough for the select curve of LoRA r = 32 to flatten.
        files: Names of the train and the test file, without their ending.
    """

    metric: str
    epochs: int
    files: tuple[str, str] = ("train", "validation")


SUBSET = ("train_subset", "train_subset_heldout")
TASKS = {
    "cola": Task("matthews_correlation", 3),
    "stsb": Task("pearson", 3),
    "mrpc": Task("accuracy", 4),
    "qqp": Task("accuracy", 2, SUBSET),
    "mnli": Task("accuracy", 2, SUBSET),
    "rte": Task("accuracy", 8),
    "qnli": Task("accuracy", 2, ("train_subset", "validation")),
}


class Method(NamedTuple):
    """A rival: the command after ``python -m morenas.`` that runs it, and the learning rates that it is tried at."""

    words: tuple[str, ...]
    rates: tuple[float, ...]


METHODS = {
    "lora-r1": Method(("finetune", "method=lora", "method.rank=1"), (1e-3, 3e-3, 1e-2)),
    "lora-r32": Method(("finetune", "method=lora", "method.rank=32"), (1e-4, 3e-4, 1e-3)),
}


class Row(NamedTuple):
    """One training."""

    model: str
    task: str
    method: str
    learning_rate: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.model}-{self.task}-{self.method}-{self.learning_rate:g}-{self.seed}"


class Series:
    """The rows that there are, and the folders that rows are made from and in."""

    def __init__(self, glue: Path, models: Path, runs: Path, rows: Path) -> None:
        self.glue, self.models, self.runs, self.rows = glue, models, runs, rows

    def known(self) -> dict[Row, dict[str, Any]]:
        """The rows that are done."""
        if not self.rows.exists():
            return {}
        lines = json.loads(self.rows.read_text())["rows"]
        return {Row(*(line[key] for key in Row._fields)): line for line in lines}

    def run(self, row: Row) -> None:
        """Run one row unless it is done, or another process has taken it."""
        self.runs.mkdir(parents=True, exist_ok=True)
        with (self.runs / f"{row.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            if row not in self.known():
                folder = self.runs / row.name
                if not (folder / "results.json").exists():
                    subprocess.run(self.command(row, folder), check=True, stdout=subprocess.DEVNULL)
                self._keep(line_of(row, json.loads((folder / "results.json").read_text())))

    def command(self, row: Row, folder: Path) -> list[str]:
        """The command line of a row."""
        task, method = TASKS[row.task], METHODS[row.method]
        stage, *settings = method.words
        start = [sys.executable, "-m", f"morenas.{stage}"]
        if (folder / ".hydra").exists():
            return [*start, f"resume={folder}"]
        return [
            *start,
            f"+task=glue/{row.task}",
            f"task.data_dir={self._data(row.task)}",
            "model=local",
            f"model.name_or_path={self.models / MODELS[row.model]}",
            "model.pooling=mean",
            f"seed={row.seed}",
            f"training.learning_rate={row.learning_rate:g}",
            f"training.epochs={task.epochs}",
            "training.batch_size=32",
            "training.evals=8",
            "training.checkpoint_every=100000",
            "tracking=local",
            "device=cpu",
            "threads=1",
            f"hydra.run.dir={folder}",
            *settings,
        ]

    def _data(self, task: str) -> Path:
        """A folder with the task's files under the names that the commands look for."""
        folder = self.runs / "data" / task
        folder.mkdir(parents=True, exist_ok=True)
        for name, file in zip(("train", "validation"), TASKS[task].files, strict=True):
            link = folder / f"{name}.jsonl"
            if not link.exists():
                link.symlink_to((self.glue / task / f"{file}.jsonl").resolve())
        return folder

    def _keep(self, line: dict[str, Any]) -> None:
        with (self.runs / "rows.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lines = [*self.known().values(), line]
            lines.sort(key=lambda one: [one[key] for key in Row._fields])
            beside = self.rows.with_suffix(".new")
            beside.write_text('{"rows": [\n' + ",\n".join(json.dumps(one) for one in lines) + "\n]}\n")
            os.replace(beside, self.rows)


def line_of(row: Row, results: dict[str, Any]) -> dict[str, Any]:
    """What ``rows.json`` keeps of a run."""
    metric = TASKS[row.task].metric
    found = results["methods"][0]
    return {
        **row._asdict(),
        "metric": found["metrics"]["test"][metric],
        "select": found["metrics"]["select"][metric],
        "params": found["adapter_params"],
        "passes": TASKS[row.task].epochs,
        "seconds": round(found["seconds"], 1),
        "best_step": found["details"]["best_step"],
        "steps": found["steps"],
        "commit": results["git_commit"],
    }


def wanted(
    known: Callable[[], dict[Row, dict[str, Any]]],
    models: Sequence[str],
    tasks: Sequence[str],
    methods: Sequence[str],
) -> Iterator[Row]:
    """Rows in the order of the protocol: learning rates at seed 0 for all, then the other seeds at the best of them."""
    places = [(model, task, method) for model in models for task in tasks for method in methods]
    for place in places:
        for rate in METHODS[place[2]].rates:
            yield Row(*place, rate, 0)
        if (further := further_rate(known(), place)) is not None:
            yield Row(*place, further, 0)
    for seed in SEEDS[1:]:
        for place in places:
            if (best := best_rate(known(), place)) is not None:
                yield Row(*place, best, seed)


def best_rate(known: dict[Row, dict[str, Any]], place: tuple[str, str, str]) -> float | None:
    """The learning rate of highest select metric at seed 0; None before the trials are done."""
    tried = {row.learning_rate: line["select"] for row, line in known.items() if row[:3] == place and row.seed == 0}
    return max(tried, key=lambda rate: tried[rate]) if set(METHODS[place[2]].rates) <= set(tried) else None


def further_rate(known: dict[Row, dict[str, Any]], place: tuple[str, str, str]) -> float | None:
    """One half-decade past the grid, where the best lies at its end."""
    rates, best = METHODS[place[2]].rates, best_rate(known, place)
    if best == rates[0]:
        return half_decade(best, down=True)
    return half_decade(best, down=False) if best == rates[-1] else None


def half_decade(rate: float, down: bool) -> float:
    """The neighbour of a rate on the grid 1e-4, 3e-4, 1e-3, …"""
    one = f"{rate:.0e}".startswith("1")
    factor = (1 / 3.0 if not one else 0.3) if down else (3.0 if one else 10 / 3.0)
    return float(f"{rate * factor:.0e}")


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, meaning in (("glue", "GLUE's files"), ("models", "models"), ("runs", "run directories, which are kept")):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"folder of {meaning}")
    parser.add_argument("--rows", type=Path, default=HERE / "rows.json", help="file of the rows")
    for name, known in (("models", MODELS), ("tasks", TASKS), ("methods", METHODS)):
        parser.add_argument(f"--only-{name}", default=",".join(known), help="names, with commas")
    given = parser.parse_args()
    series = Series(given.glue, given.models, given.runs, given.rows)
    names = [getattr(given, f"only_{one}").split(",") for one in ("models", "tasks", "methods")]
    for row in wanted(series.known, *names):
        series.run(row)
        print(row.name, flush=True)


if __name__ == "__main__":
    main()
