"""One file of rows: JSON lines, JSON, CSV, TSV or Parquet, as it is or packed by gzip."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from morenas.base.errors import InputError, suggest
from morenas.tasks.sources.raw import RawRow, Table

PACKED = ".gz"
LONGEST_FIELD = 2**31 - 1  # characters; of a csv field, whose limit is a global of the csv module


def read_table(path: Path) -> Table:
    """Read one file, in the format that the ending of its name says.

    Raises:
        InputError: Naming the file and, where there is one, the line.
    """
    if (kind := ending(path)) not in READERS:
        raise InputError(f"{path}: cannot be read as data; its name must end in one of {', '.join(READERS)}.")
    if not path.is_file():
        there = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        raise InputError(
            f"{path}: there is no such file{suggest(path.name, there)}. There are: {', '.join(there[:12])}"
        )
    table = READERS[kind](path)
    if not table.rows:
        raise InputError(f"{path}: holds no examples.")
    return table


def ending(path: Path) -> str:
    """What a file's name says of its format, in lower case and without that of its packing."""
    packed = path.suffix.lower() == PACKED
    return (path.with_suffix("") if packed else path).suffix.lower()


def stem_of(path: Path) -> str:
    """A file's name without that of its format and packing."""
    packed = path.suffix.lower() == PACKED
    return (path.with_suffix("") if packed else path).stem


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix.lower() == PACKED else data
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); check the file, or copy it again.") from error


def _text(path: Path) -> str:
    data = _bytes(path)
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
            rows.append(_row(_parse(line, f"{path}, line {number}"), f"{path}, line {number}"))
            lines.append(number)
    return Table(path.name, rows, lines)


def _read_json(path: Path) -> Table:
    value = _parse(_text(path), f"{path}", "; a file of one object a line is called .jsonl")
    rows = value.get("data") if isinstance(value, dict) else value
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f'{path}: must hold a list of objects, or an object with such a list under "data".')
    return Table(path.name, rows)


def _parse(text: str, place: str, hint: str = "") -> Any:
    def once(pairs: list[tuple[str, Any]]) -> RawRow:
        _check_distinct([name for name, _ in pairs], place)
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError too
        said = "nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f"{place}: not JSON ({said}){hint}.") from error


def _row(value: Any, place: str) -> RawRow:
    if not isinstance(value, dict):
        raise InputError(f"{place}: a row must be a JSON object, this is a {type(value).__name__}.")
    return value


def _check_distinct(names: list[str], place: str) -> None:
    if len(set(names)) < len(names) and (
        twice := [name for name, times in Counter(names).items() if times > 1 and name]
    ):
        raise InputError(f"{place}: there are two columns '{twice[0]}'; rename one of them, or leave it out.")


def _read_separated(separator: str) -> Callable[[Path], Table]:
    def read(path: Path) -> Table:
        text = _text(path)
        quoted = separator == "," or _quotes_are_marks(text, separator)
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        with _any_length():
            return _read_rows(path, text, separator, quoting)

    return read


def _read_rows(path: Path, text: str, separator: str, quoting: Literal[0, 3]) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting, strict=True)
    rows: list[RawRow] = []
    lines: list[int] = []
    header: list[str] | None = None
    try:
        for fields in reader:
            if header is None:
                header = fields
                _check_distinct(header, f"{path}, line {reader.line_num}")
            elif fields:
                if len(fields) != len(header):
                    raise InputError(
                        f"{path}, line {reader.line_num}: has another number of fields than the header ({len(header)})."
                    )
                rows.append(dict(zip(header, fields, strict=True)))
                lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}.") from error
    return Table(path.name, rows, lines)


def _quotes_are_marks(text: str, separator: str) -> bool:
    """Whether a program put the quotes of a TSV file around its fields, as pandas does.

    In GLUE's own files they are plain text. So they are marks only where writing the rows again gives the same file.
    """
    if '"' not in text:
        return False
    plain = text.replace("\r\n", "\n").rstrip("\n")
    with _any_length(), contextlib.suppress(csv.Error):
        rows = list(csv.reader(io.StringIO(plain, newline=""), delimiter=separator, strict=True))
        return any(_written(rows, separator, quoting) == plain for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    return False


def _written(rows: list[list[str]], separator: str, quoting: Literal[0, 1]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator, quoting=quoting, lineterminator="\n").writerows(rows)
    return text.getvalue().rstrip("\n")


@contextlib.contextmanager
def _any_length() -> Iterator[None]:
    """Let csv fields be of any length."""
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(pyarrow.BufferReader(_bytes(path))) as file:
            _check_distinct(file.schema_arrow.names, f"{path}")
            rows: list[dict[str, Any]] = file.read().to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a whole Parquet file ({error}).") from error
    return Table(path.name, rows)


READERS: dict[str, Callable[[Path], Table]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_separated(","),
    ".tsv": _read_separated("\t"),
    ".parquet": _read_parquet,
}
