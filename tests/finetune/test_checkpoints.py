"""A checkpoint is whole, or does not count, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from morenas.base.errors import InputError
from morenas.finetune.checkpoints import MANIFEST, checkpoint_folder, keep_only, last_checkpoint, seal, verify


def write(directory: Path, step: int, sealed: bool = True) -> Path:
    folder = checkpoint_folder(directory, step)
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"w" * 100)
    (folder / "state").write_text("{}")
    if sealed:
        seal(folder, {"step": step})
    return folder


def test_the_latest_sealed_folder_counts_and_its_info_comes_back(tmp_path: Path) -> None:
    write(tmp_path, 9)
    latest = write(tmp_path, 10)
    assert last_checkpoint(tmp_path) == latest
    assert verify(latest) == {"step": 10}


def test_what_was_cut_off_while_written_is_removed(tmp_path: Path) -> None:
    whole, cut = write(tmp_path, 5), write(tmp_path, 6, sealed=False)
    assert last_checkpoint(tmp_path) == whole
    assert not cut.exists()


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "never") is None
    write(tmp_path, 1, sealed=False)
    assert last_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    "damage", [lambda p: p.write_bytes(b"w" * 99), lambda p: p.write_bytes(b"v" * 100), Path.unlink]
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: object) -> None:
    folder = write(tmp_path, 5)
    damage(folder / "weights")  # type: ignore[operator]
    with pytest.raises(InputError, match="checkpoint-5/weights"):
        verify(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "other"}'])
def test_a_damaged_manifest_is_refused_by_name(tmp_path: Path, content: str) -> None:
    folder = write(tmp_path, 5)
    (folder / MANIFEST).write_text(content)
    with pytest.raises(InputError, match=rf"checkpoint-5/{MANIFEST}"):
        verify(folder)


def test_only_the_named_ones_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        write(tmp_path, step)
    keep_only(tmp_path, {2, 10})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2"]


def test_a_removal_cut_off_half_way_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1), write(tmp_path, 2)

    def killed(folder: Path, **_: object) -> None:
        (folder / "state").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("morenas.base.unfinished.shutil.rmtree", killed)
        keep_only(tmp_path, {1})
    assert last_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 1)
    assert list(tmp_path.iterdir()) == [checkpoint_folder(tmp_path, 1)]


def test_folders_of_another_trainer_are_no_obstacle(tmp_path: Path) -> None:
    whole = write(tmp_path, 3)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-500").mkdir()
    (tmp_path / "checkpoint-500" / "training_args.bin").write_bytes(b"\x80\x04")
    assert last_checkpoint(tmp_path) == whole
