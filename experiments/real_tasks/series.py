"""Run the rows of the real-task table that are missing, one after another, and keep each as soon as it is there.

    python experiments/real_tasks/series.py --glue <folder> --models <folder> --runs <folder> [--only-methods lora-r1,…]

A row is one training: model, task, method, learning rate and seed. ``protocol.py`` says in what order, and how a
learning rate is chosen. What ``rows.json`` holds is not run again, a run that has ended is read, and an interrupted one
is resumed from its checkpoint. Several of these may run beside each other on one ``rows.json``. ``--list`` prints a
command for each row that can be run now, for a scheduler of one's own; a row that waits for others is printed once
they are there.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from protocol import METHODS, MODELS, TASKS, Known, Row, missing, row_beside, rows_of

HERE = Path(__file__).parent
BATCH = 32  # examples of an optimizer step


class Series:
    """The rows that there are, and the folders that rows are made from and in."""

    def __init__(self, glue: Path, models: Path, runs: Path, rows: Path = HERE / "rows.json") -> None:
        self.glue, self.models, self.runs, self.rows = glue, models, runs, rows

    def known(self) -> Known:
        """The rows that are done."""
        return rows_of(json.loads(self.rows.read_text())["rows"]) if self.rows.exists() else {}

    def run(self, row: Row) -> bool:
        """Run one row unless it is done, or another process has taken it; False if its run failed."""
        self.runs.mkdir(parents=True, exist_ok=True)
        with (self.runs / f"{row.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            folder, known = self.runs / row.name, self.known()
            if row in known:
                return True
            if not (folder / "results.json").exists():
                command = self.command(row, folder, row_beside(known, row))
                if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
                    return False
            self._keep(line_of(row, folder))
            return True

    def command(self, row: Row, folder: Path, beside: Any = None) -> list[str]:
        """The command line of a row.

        Args:
            folder: Run directory; one that has been started is gone on with.
            beside: The row that says how large or how long this one is, for methods that need one.
        """
        stage, *settings = METHODS[row.method].words
        start = [sys.executable, "-m", f"morenas.{stage}"]
        if (folder / ".hydra").exists():
            return [*start, f"resume={folder}"]
        task = TASKS[row.task]
        return [
            *start,
            f"+task=glue/{row.task}",
            f"task.data_dir={self._data(row.task)}",
            *task.words,
            "model=local",
            f"model.name_or_path={self.models / MODELS[row.model]}",
            "model.pooling=mean",
            f"seed={row.seed}",
            f"training.learning_rate={row.learning_rate:g}",
            f"training.epochs={task.epochs}",
            f"training.batch_size={BATCH}",
            "training.evals=8",
            "training.checkpoint_every=100000",
            "tracking=local",
            "device=cpu",
            "threads=1",
            f"hydra.run.dir={folder}",
            *(word.format_map(beside or {}) for word in settings),
        ]

    def _data(self, task: str) -> Path:
        """A folder with the task's files under the names that the commands look for."""
        folder = self.runs / "data" / task
        folder.mkdir(parents=True, exist_ok=True)
        for name, file in TASKS[task].files.items():
            link = folder / f"{name}.jsonl"
            if not link.is_symlink():
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


def line_of(row: Row, folder: Path) -> dict[str, Any]:
    """What ``rows.json`` keeps of a run.

    Passes are over the train split and count search and training together; so do seconds. A search says also how many
    modules of each layer type have how many blocks (``shapes``), and what it expected to gain over LoRA (``worth``).
    """
    results = json.loads((folder / "results.json").read_text())
    metric, found, sizes = TASKS[row.task].metric, results["methods"][0], results["data"]["sizes"]
    details, steps_of_pass = found["details"], math.ceil((sizes["search_train"] + sizes["search_val"]) / BATCH)
    line = {
        **row._asdict(),
        "metric": found["metrics"][results["split"]][metric],
        "select": found["metrics"]["select"][metric],
        "params": found["adapter_params"],
        "passes": round(details.get("passes_with_search", found["steps"]) / steps_of_pass, 3),
        "seconds": round(sum(p["seconds"] for p in results["phases"] if p["name"] in ("search", "finetune")), 1),
        "best_step": details["best_step"],
        "steps": found["steps"],
        "commit": results["git_commit"],
    }
    if results["kind"] == "search":
        modules = json.loads((folder / "architecture.json").read_text())["modules"]
        line |= {"shapes": shapes_by_type(modules), "worth": details.get("worth")}
    return line


def shapes_by_type(modules: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Modules by layer type and number of blocks, from those of ``architecture.json``."""
    from morenas.space.choices import group_name

    counts = Counter((group_name(name, "type"), str(shape["nblocks"])) for name, shape in modules.items())
    found: dict[str, dict[str, int]] = {}
    for (kind, nblocks), count in sorted(counts.items(), key=lambda item: (item[0][0], int(item[0][1]))):
        found.setdefault(kind, {})[nblocks] = count
    return found


def work(series: Series, names: Sequence[Sequence[str]]) -> list[Row]:
    """Run what is missing, and what can be run after it; the rows whose runs failed."""
    seen: set[Row] = set()
    failed = []
    while rows := [row for row in missing(series.known(), *names) if row not in seen]:
        seen.add(row := rows[0])
        if not series.run(row):
            failed.append(row)
        print(row.name, "failed" if row in failed else "", flush=True)
    return failed


def main() -> None:
    """Run what is missing, or one row of it, or print the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, meaning in (("glue", "GLUE's files"), ("models", "models"), ("runs", "run directories, which are kept")):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"folder of {meaning}")
    parser.add_argument("--rows", type=Path, default=HERE / "rows.json", help="file of the rows")
    for name, known in (("models", MODELS), ("tasks", TASKS), ("methods", METHODS)):
        parser.add_argument(f"--only-{name}", default=",".join(known), help="names, with commas")
    parser.add_argument("--list", action="store_true", help="print a command for each row that can be run now")
    parser.add_argument("--row", help="run this row alone, by the name that --list gives it")
    given = parser.parse_args()
    series = Series(given.glue, given.models, given.runs, given.rows)
    names = [getattr(given, f"only_{one}").split(",") for one in ("models", "tasks", "methods")]
    now = {row.name: row for row in missing(series.known(), *names)}
    if given.list:
        folders = [
            word for one in ("glue", "models", "runs", "rows") for word in (f"--{one}", str(getattr(given, one)))
        ]
        for name in now:
            print(shlex.join([sys.executable, __file__, *folders, "--row", name]))
    elif given.row is None:
        sys.exit(f"failed: {[row.name for row in failed]}" if (failed := work(series, names)) else 0)
    elif given.row in now:
        sys.exit(0 if series.run(now[given.row]) else 1)
    else:
        sys.exit(f"{given.row}: is done, or waits for other rows; --list says which can be run now.")


if __name__ == "__main__":
    main()
