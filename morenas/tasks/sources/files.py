"""Local files: JSON lines, JSON, CSV, TSV and Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from morenas.base.errors import InputError, suggest
from morenas.base.files import sha256
from morenas.tasks.sources.raw import Raw, RawRow, Table
from morenas.tasks.spec import TaskSpec

TEST_STEMS = ("validation", "test")


def read_files(spec: TaskSpec) -> Raw:
    """Read the train and test files of a task.

    Raises:
        InputError: If a folder or file is missing, of an unknown type, or not what the ending of its name says.
    """
    folder = _folder(spec)
    train = None if spec.train_split is None else _train(folder, spec.train_file)
    tests = {name: folder / file for name, file in spec.test_files.items()} if spec.test_files else _tests(folder)
    paths = [*([train] if train else []), *tests.values()]
    tables = {path: read_table(path) for path in dict.fromkeys(paths)}
    provenance = {
        "source": "files",
        "data_dir": str(folder),
        "files": {path.name: {"sha256": sha256(path), "rows": len(table.rows)} for path, table in tables.items()},
    }
    return Raw(tables[train] if train else None, {name: tables[path] for name, path in tests.items()}, provenance)


def read_table(path: Path) -> Table:
    """Read one file, in the format that the ending of its name says.

    Raises:
        InputError: Naming the file and, where there is one, the line.
    """
    if path.suffix not in READERS:
        raise InputError(f"{path}: cannot be read as data; its name must end in one of {', '.join(READERS)}.")
    if not path.is_file():
        there = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        raise InputError(
            f"{path}: there is no such file{suggest(path.name, there)}. There are: {', '.join(there[:12])}"
        )
    table = READERS[path.suffix](path)
    if not table.rows:
        raise InputError(f"{path}: holds no examples.")
    return table


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


def _train(folder: Path, name: str | None) -> Path:
    return folder / name if name else _only(folder, "train")


def _with_stem(folder: Path, stem: str) -> list[Path]:
    """Files called ``stem`` or ``stem_<something>``, of a known type."""
    return sorted(
        p for p in folder.iterdir() if p.suffix in READERS and (p.stem == stem or p.stem.startswith(f"{stem}_"))
    )


def _only(folder: Path, stem: str) -> Path:
    found = [path for path in _with_stem(folder, stem) if path.stem == stem]
    if len(found) == 1:
        return found[0]
    there = ", ".join(sorted(p.name for p in folder.iterdir())[:12]) or "nothing"
    wanted = "more than one file is called" if found else "there is no file called"
    raise InputError(
        f"{folder}: {wanted} {stem}.* ({', '.join(READERS)}); name it by task.train_file. There is: {there}"
    )


def _tests(folder: Path) -> dict[str, Path]:
    for stem in TEST_STEMS:
        if found := _with_stem(folder, stem):
            return {path.stem.replace(stem, "test", 1): path for path in found}
    there = ", ".join(sorted(p.name for p in folder.iterdir())[:12])
    raise InputError(
        f"{folder}: there is neither validation.* nor test.*; name it by task.test_files. There is: {there}"
    )


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8."
        ) from error


def _read_jsonl(path: Path) -> Table:
    rows, lines = [], []
    # Not splitlines: it also cuts at characters such as U+2028, which texts may hold.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            rows.append(_parse(line, f"{path}, line {number}"))
            lines.append(number)
    return Table(path.name, rows, lines)


def _parse(text: str, place: str) -> RawRow:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise InputError(f"{place}: a row must be a JSON object, this is a {type(value).__name__}.")
    return value


def _read_json(path: Path) -> Table:
    try:
        value = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error}); a file of one object a line is called .jsonl.") from error
    rows = value.get("data") if isinstance(value, dict) else value
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f'{path}: must hold a list of objects, or an object with such a list under "data".')
    return Table(path.name, rows)


def _read_separated(separator: str) -> Callable[[Path], Table]:
    def read(path: Path) -> Table:
        # In TSV files quotes are plain text, as in GLUE's own files.
        quoting: Literal[0, 3] = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
        text = io.StringIO(_text(path), newline="")
        reader = csv.DictReader(text, delimiter=separator, quoting=quoting, strict=True)
        rows, lines = [], []
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise InputError(
                        f"{path}, line {reader.line_num}: has another number of fields than the header "
                        f"({len(reader.fieldnames or [])})."
                    )
                rows.append(dict(row))
                lines.append(reader.line_num)
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: {error}.") from error
        return Table(path.name, rows, lines)

    return read


def _read_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a whole Parquet file ({error}).") from error
    return Table(path.name, rows)


READERS: dict[str, Callable[[Path], Table]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_separated(","),
    ".tsv": _read_separated("\t"),
    ".parquet": _read_parquet,
}
