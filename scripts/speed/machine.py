"""What a bench ran on, and how it was called."""

from __future__ import annotations

import os
import platform
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from morenas.run.devices import describe_device
from morenas.run.results import git_commit, versions
from speed.settings import Bench

FOLDERS = ("--reference", "--minilm", "--glue")


def machine(bench: Bench) -> dict[str, Any]:
    """Processor, libraries and settings."""
    found = versions()
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": bench.threads,
        "device": describe_device(bench.device),
        "dtype": str(bench.dtype).removeprefix("torch."),
        "blas": blas(),
        **{name: found[name] for name in ("python", "torch", "peft", "transformers")},
        "git_commit": git_commit(),
    }


def processor() -> str:
    """The processor's model name, where the system tells it."""
    path = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.*)$", path.read_text(), re.MULTILINE) if path.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def blas() -> str:
    """What torch says of its matrix products: MKL's version, else the name of its BLAS."""
    configuration = torch.__config__.show()
    found = re.search(r"^.*Math Kernel Library.*$|BLAS_INFO=\w+", configuration, re.MULTILINE)
    return found.group().strip(" -") if found else "unknown"


def command(words: Sequence[str]) -> str:
    """The command line; folders of this machine are named, not spelled out."""
    told = [word for given in words for word in (given.split("=", 1) if given.startswith("--") else [given])]
    for index, option in enumerate(told[:-1]):
        if option in FOLDERS:
            told[index + 1] = f"<{option.strip('-')}>"
        elif option == "--json":
            told[index + 1] = Path(told[index + 1]).name
    return "python scripts/bench_speed.py " + " ".join(
        word if word.startswith("<") else shlex.quote(word) for word in told
    )
