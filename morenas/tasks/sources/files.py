"""Local files of a task: which there are, in one piece or in several."""

from __future__ import annotations

import re
from pathlib import Path

from morenas.base.errors import InputError
from morenas.base.files import sha256
from morenas.tasks.sources.raw import Raw, Table
from morenas.tasks.sources.tables import READERS, ending, read_table, stem_of
from morenas.tasks.spec import TaskSpec

TEST_STEMS = ("validation", "dev", "test")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})")  # as the hub and Spark call the pieces of a file


def read_files(spec: TaskSpec) -> Raw:
    """Read the train and test files of a task.

    Raises:
        InputError: If a folder or file is missing, of an unknown type, or not what the ending of its name says.
    """
    folder = _folder(spec)
    train = () if spec.train_split is None else _train(folder, spec.train_file)
    tests = _named_tests(folder, spec.test_files) if spec.test_files else _tests(folder)
    tables = {
        path: read_table(path) for path in dict.fromkeys((*train, *(p for paths in tests.values() for p in paths)))
    }
    provenance = {
        "source": "files",
        "data_dir": str(folder),
        "files": {path.name: {"sha256": sha256(path), "rows": len(table.rows)} for path, table in tables.items()},
    }
    joined = {name: _joined([tables[path] for path in paths]) for name, paths in tests.items()}
    return Raw(_joined([tables[path] for path in train]) if train else None, joined, provenance)


def _joined(tables: list[Table]) -> Table:
    if len(tables) == 1:
        return tables[0]
    name = f"{tables[0].name} to {tables[-1].name}"
    return Table(name, [row for table in tables for row in table.rows], shards=tuple(tables))


def _folder(spec: TaskSpec) -> Path:
    if spec.data_dir is None:
        raise InputError(f"Task '{spec.name}' reads local files: set task.data_dir=<folder>.")
    folder = Path(spec.data_dir).expanduser()
    if not folder.is_dir():
        raise InputError(f"task.data_dir={spec.data_dir}: there is no such folder.")
    if spec.folder is not None:
        return folder / spec.folder if (folder / spec.folder).is_dir() else folder
    inner = folder / spec.name.rpartition("/")[2]
    return inner if not _with_stem(folder, "train") and inner.is_dir() else folder


def _train(folder: Path, name: str | None) -> tuple[Path, ...]:
    return _matching(folder, name) if name else _only(folder, "train")


def _named_tests(folder: Path, names: dict[str, str]) -> dict[str, tuple[Path, ...]]:
    return {name: _matching(folder, file) for name, file in names.items()}


def _matching(folder: Path, name: str) -> tuple[Path, ...]:
    """The file of a name, or all that a name with ``*`` fits."""
    if "*" not in name:
        return (folder / Path(name).expanduser(),)
    found = tuple(sorted(path for path in folder.glob(name) if path.is_file()))
    if not found:
        raise InputError(f"{folder / name}: there is no such file. There is: {_listed(folder)}")
    return found


def _with_stem(folder: Path, stem: str) -> dict[str, tuple[Path, ...]]:
    """Files called ``stem`` or ``stem_<something>``, of a known type, by that name: each whole or in pieces.

    Raises:
        InputError: If a piece is missing, or two files have one name.
    """
    found: dict[str, dict[str, list[Path]]] = {}
    for path in sorted(folder.iterdir()):
        name = stem_of(path)
        if (piece := _SHARD.fullmatch(name)) is not None:
            name = piece[1]
        if ending(path) in READERS and (name == stem or name.startswith(f"{stem}_")):
            whole = f"{name}-of-{piece[3]}{ending(path)}" if piece else path.name
            found.setdefault(name, {}).setdefault(whole, []).append(path)
    for name, files in found.items():
        if len(files) > 1:
            key = "train_file" if stem == "train" else "test_files"
            raise InputError(
                f"{folder}: more than one file is called {name}.* ({', '.join(files)}); name the one to read by "
                f"task.{key}."
            )
        _check_pieces(folder, *files.values())
    return {name: tuple(paths) for name, files in found.items() for paths in files.values()}


def _check_pieces(folder: Path, paths: list[Path]) -> None:
    pieces = [piece for path in paths if (piece := _SHARD.match(path.name)) is not None]
    if pieces and sorted(int(piece[2]) for piece in pieces) != list(range(int(pieces[0][3]))):
        raise InputError(
            f"{folder}: {pieces[0][1]} is in {int(pieces[0][3])} pieces, and there are {len(pieces)} "
            f"({', '.join(path.name for path in paths[:3])}); copy them all, each once."
        )


def _only(folder: Path, stem: str) -> tuple[Path, ...]:
    if found := _with_stem(folder, stem).get(stem):
        return found
    raise InputError(
        f"{folder}: there is no file called {stem}.* ({', '.join(READERS)}); name it by task.train_file. There is: "
        f"{_listed(folder)}"
    )


def _tests(folder: Path) -> dict[str, tuple[Path, ...]]:
    for stem in TEST_STEMS:
        if found := _with_stem(folder, stem):
            return {name.replace(stem, "test", 1): paths for name, paths in found.items()}
    raise InputError(
        f"{folder}: there is neither validation.*, dev.* nor test.*; name it by task.test_files. There is: "
        f"{_listed(folder)}"
    )


def _listed(folder: Path) -> str:
    return ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "nothing"
