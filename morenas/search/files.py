"""Files that a search leaves in a run directory, and what a final fine-tune inherits through one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from morenas.base.files import write_arrays, write_bytes
from morenas.search.engine import SearchOutcome
from morenas.space import SearchSpace

Tensors = dict[str, Any]


def write_candidates(path: Path, outcome: SearchOutcome) -> None:
    """Write ``search/candidates.jsonl``: every whole architecture that was measured, in order."""
    lines = [json.dumps(one.document(), allow_nan=False) + "\n" for one in outcome.candidates]
    write_bytes(path, "".join(lines).encode())


def write_trajectory(path: Path, space: SearchSpace, outcome: SearchOutcome) -> None:
    """Write ``search/trajectory.npz``: mixing probabilities over time, per group."""
    write_arrays(
        path,
        probs=outcome.trajectory.numpy(),
        logits=outcome.logits.numpy(),
        steps=np.array(outcome.trajectory_steps),
        groups=np.array(list(space.groups)),
        choices=np.array([str(choice) for choice in space.choices]),
    )


def pack(outcome: SearchOutcome) -> dict[str, Any]:
    """What the final fine-tune inherits, as named tensors."""
    tensors = {f"head/{name}": tensor for name, tensor in outcome.head.items()}
    for name, (first, second) in outcome.factors.items():
        tensors |= {f"first/{name}": first, f"second/{name}": second}
    return tensors


def unpack(tensors: dict[str, Any]) -> tuple[Tensors, Tensors]:
    """Tensors by module and head by parameter, from what ``pack`` gave."""
    parts: dict[str, Tensors] = {"head": {}, "first": {}, "second": {}}
    for key, tensor in tensors.items():
        kind, _, name = key.partition("/")
        parts[kind][name] = tensor
    return {name: (first, parts["second"][name]) for name, first in parts["first"].items()}, parts["head"]
