"""Checkpoints of tensors come back bit for bit, or are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from morenas.base.errors import InputError
from morenas.base.tensors import load_tensors, save_tensors


def test_tensors_round_trip_bit_for_bit_views_included(tmp_path: Path) -> None:
    base = torch.randn(4, 6)
    tensors = {"a": base, "view": base[:, 1:3].T, "half": base.bfloat16(), "whole": torch.arange(3)}
    save_tensors(tmp_path / "state", tensors, {"step": 3})
    found, info = load_tensors(tmp_path / "state")
    assert info == {"step": 3} and all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("spoil", ["cut", "empty", "pickle", "missing"])
def test_a_checkpoint_that_is_not_whole_is_refused(spoil: str, tmp_path: Path) -> None:
    path = tmp_path / "state"
    save_tensors(path, {"a": torch.randn(100)})
    if spoil == "pickle":
        torch.save({"a": torch.randn(100)}, path)
    elif spoil == "missing":
        path.unlink()
    else:
        os.truncate(path, 0 if spoil == "empty" else path.stat().st_size // 2)
    with pytest.raises(InputError, match="not a whole checkpoint"):
        load_tensors(path)
