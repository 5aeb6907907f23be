"""A run is one process, and says so to a launcher that starts several."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import CommandLine

from morenas.run.processes import COUNTS


@pytest.mark.parametrize("name", COUNTS)
def test_one_of_several_processes_is_refused_before_anything_is_made(
    command: CommandLine, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, "2")
    done = command("search", "+task=demo")
    assert done.status == 2 and f"{name}=2: a launcher has started 2 processes" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", ["1", "", "none"])
def test_one_process_is_a_run(command: CommandLine, count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", count)
    assert command("search", "+task=demo", "--cfg", "job").status == 0


@pytest.mark.slow
def test_torchrun_is_told(tmp_path: Path) -> None:
    words = ["--nproc-per-node", "2", "--master-port", "0", "--no-python", sys.executable, "-m", "morenas.search"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words, "+task=demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0 and "a run is one process" in done.stderr and not list(tmp_path.iterdir())
