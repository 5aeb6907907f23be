"""Run a search whole, then kill it by SIGKILL at chosen moments and resume it; print what each run came to.

    python kill_a_search.py <folder> <words of the command line>

Runs as a program: it imports once, also what a run imports at its first need, and forks each run, so that a kill
costs no import and no composing.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sklearn.metrics  # noqa: F401
import torch
from tiny_runs import composed, run

import morenas.finetune.loop
import morenas.search.engine  # noqa: F401
from morenas.base.files import sha256
from morenas.run import publish

Moment = Callable[[Path], bool]


def start(words: list[str]) -> int:
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            torch.manual_seed(time.time_ns() % 2**32)  # nothing may depend on what came before
            publish.write_report = lambda directory, results: None  # drawing takes longer than the run
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.argv = ["morenas.search", *words]
            status = run("search")
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(status)
    return child


def finish(child: int) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        sys.exit(f"the run ended with {status}")


def kill_when(child: int, moment: Moment, directory: Path) -> bool:
    """Kill the run once ``moment`` holds of its directory; whether it was still running then."""
    while not moment(directory):
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return False
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def lines(directory: Path) -> int:
    path = directory / "search" / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def after(seconds: float) -> Moment:
    """A time after the first look."""
    began: list[float] = []

    def moment(directory: Path) -> bool:
        began.append(time.monotonic())
        return began[-1] > began[0] + seconds and (directory / ".hydra" / "run.json").exists()

    return moment


MOMENTS: dict[str, Moment] = {
    "in the search": lambda directory: lines(directory) >= 5,
    "between the phases": lambda directory: (directory / "architecture.json").exists(),
    "in the final fine-tune": lambda directory: any(
        (directory / "checkpoints" / "finetune").glob("*/trainer_state.json")
    ),
    "in the comparison": lambda directory: (directory / "checkpoints" / "finetune.json").exists(),
}
"""In the order in which one run meets them."""


def killed_at(moments: list[Moment], directory: Path, words: list[str]) -> dict[str, Any] | None:
    """Kill one run at each of the moments, resume it each time, and let it finish; its outcome.

    None where the run ended before one of them.
    """
    child = start([*words, f"hydra.run.dir={directory}"])
    for moment in moments:
        if not kill_when(child, moment, directory):
            return None
        child = start([f"resume={directory}"])
    finish(child)
    return outcome(directory, kills=len(moments))


def killed_at_random(directory: Path, words: list[str], whole: float) -> dict[str, Any]:
    """As ``killed_at``, at two random moments of a run of so many seconds; sooner, where it was quicker than that."""
    while True:
        drawn = [after(random.uniform(0.1, 0.35) * whole) for _ in range(2)]
        if found := killed_at(drawn, directory, words):
            return found
        shutil.rmtree(directory)
        whole /= 2


def outcome(directory: Path, kills: int = 0) -> dict[str, Any]:
    """What must be equal, and how many kills hit the run at work."""
    results = json.loads((directory / "results.json").read_text())
    logs = [json.loads(line) for line in (directory / "search" / "metrics.jsonl").read_text().splitlines()]
    return {
        "kills": kills,
        "architecture": json.loads((directory / "architecture.json").read_text()),
        "trajectory": sha256(directory / "search" / "trajectory.npz"),
        "log": [
            {key: value for key, value in log.items() if "time" not in key and "seconds" not in key} for log in logs
        ],
        "metrics": [{**row, "seconds": None} for row in results["methods"]],
        "steps": [phase["steps"] for phase in results["phases"]],
        "adapters": [sha256(path) for path in sorted(directory.rglob("adapter_model.safetensors"))],
    }


def main() -> None:
    root, words = Path(sys.argv[1]), [*sys.argv[2:], "compare=lora"]
    composed("search", words)  # remembered by every run
    began = time.monotonic()
    finish(start([*words, f"hydra.run.dir={root / 'never'}"]))
    whole = time.monotonic() - began
    chosen = [*MOMENTS.values()]
    found = {
        "never": outcome(root / "never"),
        "at each moment": killed_at(chosen, root / "chosen", words),
        "at random": killed_at_random(root / "random", words, whole),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
