"""Fine-tune, be killed by SIGKILL at random moments, go on; print what the adapters came to.

Runs as a program: it imports once, also what a run imports at its first need, and forks each run, so that a kill
costs no import.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import sklearn.metrics  # noqa: F401
import torch
from tiny_training import SETTINGS, Recorder, tiny_adapted, tiny_data

from morenas.base.files import sha256
from morenas.finetune.loop import finetune
from morenas.finetune.methods import Lora
from morenas.finetune.state import save_adapter

ADAPTER = "adapter/adapter_model.safetensors"


def train(directory: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(time.time_ns() % 2**32)  # nothing may depend on what came before
    model = tiny_adapted(Lora(rank=2, dropout=0.1))
    finetune(model, tiny_data(), replace(SETTINGS, max_steps=24, evals=12), directory / "checkpoints", Recorder())
    save_adapter(model, directory / "adapter")


def start(directory: Path) -> int:
    child = os.fork()
    if child == 0:
        try:
            train(directory)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return child


def finish(child: int) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        sys.exit(f"the run ended with {status}")


def main() -> None:
    root, rng = Path(sys.argv[1]), random.Random()
    began = time.monotonic()
    finish(start(root / "whole"))
    whole, kills = time.monotonic() - began, 0
    for _ in range(3):
        child = start(root / "killed")
        time.sleep(rng.uniform(0.1, 0.9) * whole / 3)
        os.kill(child, signal.SIGKILL)
        kills += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    finish(start(root / "killed"))
    adapters = [sha256(root / name / ADAPTER) for name in ("whole", "killed")]
    print(json.dumps({"kills": kills, "adapters": adapters}))


if __name__ == "__main__":
    main()
