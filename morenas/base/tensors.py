"""Checkpoints of tensors: one safetensors file each, whole or absent, never unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from morenas.base.errors import InputError
from morenas.base.files import finite, parse_json, write_bytes


def save_tensors(path: Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any] | None = None) -> None:
    """Write named tensors and a JSON object beside them into one file."""
    write_bytes(path, save(_copies(tensors), {"info": json.dumps(finite(info or {}), allow_nan=False)}))


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors, to the last bit."""
    return sha256(save(_copies(tensors))).hexdigest()


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_tensors`` wrote.

    Raises:
        InputError: If the file is cut short or is no checkpoint.
    """
    try:
        if not path.is_file():
            raise OSError("there is no such file")
        with safe_open(path, framework="pt") as file:
            info = parse_json((file.metadata() or {})["info"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: not a whole checkpoint ({error}); the file was cut short or changed. "
            "Restore it, or remove it to begin this phase anew."
        ) from error
    if not isinstance(info, dict):
        raise InputError(f"{path}: not a checkpoint (its info is no object); restore it, or remove it.")
    return tensors, info


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU. safetensors refuses tensors that share memory; contiguous copies never do."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
