"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from morenas.base.errors import InputError, WriteError
from morenas.base.files import read_json, sha256, whole_directory, write_bytes, write_json, writing


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


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with whole_directory(tmp_path / "folder") as folder:
        (folder / "a").write_text("old")
    replace, calls = os.replace, []

    def second_fails(*paths: Path) -> None:
        calls.append(paths)
        if len(calls) == 2:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(paths[0]))
        replace(*paths)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(WriteError), whole_directory(tmp_path / "folder") as folder:
        (folder / "a").write_text("new")
    assert (tmp_path / "folder" / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_written_is_named_as_it_was_to_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"/file/below/a: cannot be written \(Not a directory\)"):
        write_bytes(tmp_path / "file" / "below" / "a", b"")
    said = pytest.raises(WriteError, match=r"/folder: cannot be written \(Is a directory\)")
    with said, whole_directory(tmp_path / "folder") as folder:
        folder.open("w")


def test_a_copy_that_fails_is_named_by_where_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "from").write_text("text")
    monkeypatch.setattr(os, "sendfile", full)
    said = pytest.raises(WriteError, match=r"/folder: cannot be written \(No space left on device\)")
    with said, whole_directory(tmp_path / "folder") as folder:
        shutil.copyfile(tmp_path / "from", folder / "a")


def test_native_code_that_fails_on_a_full_disk_is_told_by_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(RuntimeError, match="iostream"), writing(tmp_path / "a"):
        raise RuntimeError("iostream error")
    monkeypatch.setattr(os, "fsync", full)
    said = pytest.raises(WriteError, match=r"/a: cannot be written \(No space left on device\)")
    with said, writing(tmp_path / "a"):
        raise RuntimeError("iostream error")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "none", "/the/model"), OSError("no tokenizer")])
def test_an_error_of_reading_is_none_of_writing_what_is_made_of_it(error: OSError, tmp_path: Path) -> None:
    with pytest.raises(OSError) as raised, whole_directory(tmp_path / "folder"):
        raise error
    assert raised.value is error
