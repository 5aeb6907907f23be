"""A SLURM of this machine alone, as far as submitit needs one: sbatch, srun, sacct and scontrol.

    environment = installed(folder)

What is known of a job is in files of the folder that the variable FAKE_SLURM names.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

COMMANDS = ("sbatch", "srun", "sacct", "scontrol")


def installed(folder: Path) -> Mapping[str, str]:
    """Variables with which its commands are found first.

    Args:
        folder: Where it may put them, and what it knows.
    """
    folder.mkdir()
    for name in COMMANDS:
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n')
        command.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "FAKE_SLURM": str(folder)}


def sbatch(script: str) -> None:
    job = str(len(list(known().glob("*.sbatch"))) + 1)
    kept = known() / f"{job}.sbatch"
    shutil.copy(script, kept)
    array = re.search(r"--array=0-(\d+)", kept.read_text())
    for name in [f"{job}_{task}" for task in range(int(array[1]) + 1)] if array else [job]:
        (known() / f"{name}.state").write_text("PENDING")
        nothing = subprocess.DEVNULL
        command = [sys.executable, __file__, "node", name]
        subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
    print(f"Submitted batch job {job}")


def node(name: str) -> None:
    """Run a job, and again where it has been queued again."""
    job, _, task = name.partition("_")
    environment = {**os.environ, "SLURM_JOB_ID": job, "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1"}
    environment |= dict.fromkeys(("SLURM_NODEID", "SLURM_PROCID", "SLURM_LOCALID"), "0")
    if task:
        environment |= {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": task}
    again = known() / f"{name}.requeue"
    state = known() / f"{name}.state"
    state.write_text("RUNNING")
    subprocess.run(["bash", str(known() / f"{job}.sbatch")], env=environment)
    while again.exists():
        again.unlink()
        subprocess.run(["bash", str(known() / f"{job}.sbatch")], env=environment)
    state.write_text("COMPLETED")


def srun(*words: str) -> None:
    rest = list(words)
    while rest[0].startswith("--"):
        option = rest.pop(0)
        if option in ("--output", "--error"):
            place = filled(rest.pop(0))
            os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1 if option == "--output" else 2)
    os.execvp(rest[0], rest)


def filled(place: str) -> str:
    values = {"%A": "SLURM_ARRAY_JOB_ID", "%a": "SLURM_ARRAY_TASK_ID", "%j": "SLURM_JOB_ID", "%t": "SLURM_PROCID"}
    for sign, variable in values.items():
        place = place.replace(sign, os.environ.get(variable, ""))
    return place


def sacct(*_: str) -> None:
    print("JobID|State|NodeList")
    for state in known().glob("*.state"):
        print(f"{state.stem}|{state.read_text()}|here")


def scontrol(what: str, name: str) -> None:
    assert what == "requeue"
    (known() / f"{name}.requeue").touch()


def known() -> Path:
    return Path(os.environ["FAKE_SLURM"])


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
