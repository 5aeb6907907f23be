"""The device a run computes on."""

from __future__ import annotations

import torch

from morenas.base.errors import InputError
from morenas.run.processes import team

RULE = "choose auto, cpu, cuda, cuda:<number> or mps"


def resolve_device(name: str) -> str:
    """Turn ``device=<name>`` into "cpu", "cuda:N" or "mps".

    Args:
        name: "auto" takes the first GPU, then mps, then the CPU. Of several processes on a machine each takes a GPU of
            its own.
    Raises:
        InputError: If there is no such device here.
    """
    if name == "auto":
        return f"cuda:{_own()}" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdecimal())):
        raise InputError(f"device={name}: no such kind of device; {RULE}.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device={name}: this machine has no mps device; {RULE}.")
    if kind == "cuda":
        if number and team().count > 1:
            raise InputError(f"device={name}: {team().count} processes take a GPU each; choose device=cuda.")
        number = number or str(_own())
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number) >= there:
            raise InputError(
                f"device={name}: this machine has {there or 'no'} CUDA device{'s' * (there != 1)}; {RULE}."
            )
        return f"cuda:{number}"
    return kind


def _own() -> int:
    return team().local


def describe_device(device: str) -> str:
    """The device with its model name, for the results."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") else device
