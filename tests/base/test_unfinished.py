"""What killed processes left is removed, what living ones write stays."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from morenas.base.files import whole_directory, write_text
from morenas.base.unfinished import beside, remove, sweep


def killed_while_writing(path: Path) -> None:
    """A process that fills a folder, and within it writes a file, is killed by SIGKILL."""
    child = os.fork()
    if child == 0:
        with whole_directory(path) as folder:
            os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            write_text(folder / "a", "text")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_what_a_killed_process_was_writing_is_swept(tmp_path: Path) -> None:
    killed_while_writing(tmp_path / "folder")
    (left,) = tmp_path.iterdir()
    assert any(left.iterdir())
    sweep(tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_folder_is_swept_before_it_is_written_anew(tmp_path: Path) -> None:
    killed_while_writing(tmp_path / "folder")
    with whole_directory(tmp_path / "folder") as folder:
        (folder / "b").touch()
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_what_is_being_written_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def sweep_then_replace(*paths: Path) -> None:
        sweep(tmp_path)
        replace(*paths)

    monkeypatch.setattr(os, "replace", sweep_then_replace)
    write_text(tmp_path / "a", "text")
    with whole_directory(tmp_path / "folder") as folder:
        (folder / "b").write_text("text")
    assert (tmp_path / "a").read_text() == (tmp_path / "folder" / "b").read_text() == "text"


@pytest.mark.parametrize("name", [".a.0123abcd", "a.0123abcd.unfinished", ".a.unfinished", ".a.0123.unfinished"])
def test_what_is_another_s_is_not_swept(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    sweep(tmp_path)
    assert (tmp_path / name).exists()


def test_of_a_name_only_what_was_to_have_it_is_swept(tmp_path: Path) -> None:
    mine, other = beside(tmp_path / "a*"), beside(tmp_path / "ab")
    for path in (mine, other):
        path.touch()
    sweep(tmp_path, "a*")
    assert list(tmp_path.iterdir()) == [other]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a").touch()
    beside(tmp_path / "folder" / "a").symlink_to(tmp_path / "mine")
    sweep(tmp_path / "folder")
    assert (tmp_path / "mine" / "a").exists()


def test_a_folder_is_gone_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").touch()
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # killed before it
        remove(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    sweep(tmp_path)
    assert not any(tmp_path.iterdir())
    remove(tmp_path / "folder")
