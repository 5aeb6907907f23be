"""Files appear whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch

from morenas.base.errors import InputError
from morenas.base.files import read_json, sha256, whole_directory, write_bytes, write_json
from morenas.base.seeds import derive
from morenas.base.tensors import load_tensors, save_tensors


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    path = tmp_path / "file"
    write_bytes(path, b"old")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(os, call, fail)
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_files_have_the_permissions_of_any_other(tmp_path: Path) -> None:
    write_bytes(tmp_path / "ours", b"")
    (tmp_path / "other").write_bytes(b"")
    with whole_directory(tmp_path / "folder"):
        pass
    (tmp_path / "made").mkdir()
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "other", "folder", "made")}
    assert modes["ours"] == modes["other"] and modes["folder"] == modes["made"]


def test_a_folder_that_is_not_finished_leaves_the_old_one(tmp_path: Path) -> None:
    with whole_directory(tmp_path / "folder") as folder:
        (folder / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_directory(tmp_path / "folder") as folder:
        (folder / "a").write_text("new")
        raise KeyboardInterrupt
    assert (tmp_path / "folder" / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_json_that_cannot_be_read_is_named_by_its_role(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the plan cannot be read"):
        read_json(tmp_path / "none.json", "plan")
    (tmp_path / "cut.json").write_text('{"a": ')
    with pytest.raises(InputError, match="the plan is not JSON"):
        read_json(tmp_path / "cut.json", "plan")
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(InputError, match="the plan is not JSON"):
        read_json(tmp_path / "latin.json", "plan")


def test_json_round_trips(tmp_path: Path) -> None:
    document = {"a": [1, 2.5, None, "é"]}
    write_json(tmp_path / "deep" / "a.json", document)
    assert read_json(tmp_path / "deep" / "a.json", "document") == document


def test_the_checksum_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")


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


def test_seeds_of_other_names_differ_and_stay_what_they_are() -> None:
    assert derive(0, "a") == 7606779636460171844  # runs of earlier versions are repeated by it
    assert len({derive(seed, name, number) for seed in range(3) for name in "ab" for number in range(3)}) == 18
    assert all(0 <= derive(seed) < 2**63 for seed in range(100))
