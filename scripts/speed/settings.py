"""What a bench run was asked for, checked before anything is measured."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from morenas.base.errors import InputError, suggest
from morenas.run.devices import resolve_device

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Bench:
    """What every section needs to know.

    Attributes:
        pairs: Rounds of each comparison.
        run_pairs: Rounds of whole runs.
        run_steps: Optimizer steps of a whole run's final fine-tune.
        threads: Processor threads.
        dtype: Of single layers; whole models compute in it by autocast, as the project trains them.
        quick: Tiny sizes: a smoke run.
        reference: Checkout of the paper's repository.
        minilm: Folder of a MiniLM.
        glue: Folder of GLUE files, ``mrpc/train.jsonl`` and so on.
    """

    pairs: int = 11
    run_pairs: int = 3
    run_steps: int = 60
    seed: int = 0
    threads: int = 2
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    quick: bool = False
    reference: Path | None = None
    minilm: Path | None = None
    glue: Path | None = None

    def __post_init__(self) -> None:
        for name in ("pairs", "run_pairs", "run_steps", "threads"):
            if getattr(self, name) < 1:
                option = "--" + name.replace("_", "-")
                raise InputError(f"{option} {getattr(self, name)}: must be at least 1.")
        for name in ("reference", "minilm", "glue"):
            folder = getattr(self, name)
            if folder is not None and not folder.is_dir():
                raise InputError(f"--{name} {folder}: there is no such folder; check the path, or leave --{name} out.")
        if self.glue is not None and self.minilm is None:
            raise InputError("--glue without --minilm: whole runs on GLUE need a model; name its folder by --minilm.")

    @classmethod
    def smoke(cls, **given: Any) -> Bench:
        """Tiny sizes and few rounds, unless they are given."""
        return cls(**{"pairs": 2, "run_pairs": 1, "run_steps": 4, **given, "quick": True})

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The precision that whole models compute in."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)


def device_of(name: str) -> str:
    """Turn ``--device`` into "cpu" or "cuda:N".

    Raises:
        InputError: If this machine has no such device, or nothing here measures on it.
    """
    device = resolve_device(name)
    if device == "mps":
        raise InputError(f"--device {name}: nothing waits for mps here; choose cpu, cuda or cuda:<number>.")
    return device


def sections_of(text: str, known: list[str]) -> list[str]:
    """Turn ``--sections`` into names of sections, in the order they are known in.

    Raises:
        InputError: For a name that is none.
    """
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise InputError(
                f"--sections {name}: no such section; choose from {', '.join(known)}{suggest(name, known)}"
            )
    if not wanted:
        raise InputError(f"--sections names no section; choose from {', '.join(known)}.")
    return [name for name in known if name in wanted]
