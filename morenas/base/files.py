"""Files that appear whole or not at all: written beside, flushed, then renamed into place."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from morenas.base.errors import InputError, WriteError
from morenas.base.unfinished import beside, held, sweep

DEEPEST = 64  # objects and lists inside one another
LARGEST = 2**28  # bytes of a document
LONGEST_NUMBER = 20  # digits of a whole number

Kinds = type | tuple[type, ...]


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all; parent folders are made."""
    path = Path(path).expanduser()
    new = beside(path)
    with writing(path), contextlib.ExitStack() as until_renamed:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with new.open("xb") as file:
                until_renamed.enter_context(held(new))
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
        except BaseException:
            with contextlib.suppress(OSError):
                new.unlink()
            raise


@contextlib.contextmanager
def writing(path: Path, unfinished: Path | None = None) -> Iterator[None]:
    """Let whatever cannot be written inside be a WriteError that names ``path``.

    Native code raises errors of its own, which tell no cause: where the disk takes nothing more, that was the cause.

    Args:
        unfinished: Where it is written meanwhile. If given, only what goes wrong there is an error of writing.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        cause = error if isinstance(error, OSError) else _refusal(path.parent)
        if cause is None or (isinstance(error, WriteError) and unfinished is None):
            raise
        if unfinished is not None and not _is_of(cause, unfinished):
            raise
        raise WriteError(cause.errno, cause.strerror or str(cause), str(path)) from error


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    write_bytes(path, text.encode())


def write_arrays(path: str | Path, **arrays: Any) -> None:
    """Write numpy arrays by name as a compressed ``.npz``, whole or not at all."""
    import numpy as np  # commands that only read JSON go without

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def write_json(path: str | Path, document: Any) -> None:
    """Write a JSON document, indented, whole or not at all; a number that is not finite becomes null."""
    write_text(path, json.dumps(finite(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def finite(document: Any) -> Any:
    """A JSON document in which null stands for every number that JSON does not have."""
    if isinstance(document, float):
        return document if math.isfinite(document) else None
    if isinstance(document, Mapping):
        return {name: finite(value) for name, value in document.items()}
    return [finite(value) for value in document] if isinstance(document, list | tuple) else document


def parse_json(text: str | bytes, foreign: bool = False) -> Any:
    """Parse JSON that anybody may have written.

    Args:
        foreign: Other programs write it, whose numbers may be NaN and infinite.
    Raises:
        ValueError: If it is not JSON, nested more than ``DEEPEST`` times, or holds a number that is not finite.
    """
    ours: dict[str, Any] = {"parse_constant": _no_number, "parse_float": _finite_number, "parse_int": _whole_number}
    try:
        document = json.loads(text, **({} if foreign else ours))
    except RecursionError as error:
        raise ValueError(f"nested more than {DEEPEST} times") from error
    level, depth = [document], 0
    while level:
        level = [inner for value in level for inner in _inside(value)]
        if (depth := depth + 1) > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} times")
    return document


def read_json(path: str | Path, what: str, foreign: bool = False) -> Any:
    """Read a JSON document.

    Args:
        what: What the file is, for the message.
        foreign: As of ``parse_json``.
    Raises:
        InputError: If it is missing, not a file of reasonable size, or not JSON.
    """
    path = Path(path).expanduser()
    try:
        size = path.stat().st_size
        if not path.is_file() or size > LARGEST:  # a pipe would be waited for without end
            why = f"{size:,} bytes" if path.is_file() else "no file"
            raise InputError(f"{path}: the {what} cannot be read ({why}); check the path.")
        return parse_json(path.read_text(encoding="utf-8"), foreign)
    except OSError as error:
        raise InputError(f"{path}: the {what} cannot be read ({error.strerror}); check the path.") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: the {what} is not JSON ({error}); restore the file it was copied from.") from error


def read_object(
    path: str | Path, what: str, kinds: Mapping[str, Kinds] | None = None, foreign: bool = False
) -> dict[str, Any]:
    """Read a JSON object; as ``read_json``.

    Args:
        kinds: Fields that it has to have, and of which type; there may be others.
    Raises:
        InputError: If it is missing, JSON of another kind, or lacks a field.
    """
    document = read_json(path, what, foreign)
    if not isinstance(document, dict):
        raise InputError(f"{path}: the {what} is no JSON object; restore the file it was copied from.")
    check_fields(document, kinds or {}, f"{path}: the {what}")
    return document


def check_fields(document: Mapping[str, Any], kinds: Mapping[str, Kinds], who: str) -> None:
    """Refuse an object of which a field is missing or of another type.

    Args:
        who: What it is, for the message.
    Raises:
        InputError: Naming the field.
    """
    for name, kind in kinds.items():
        value = document.get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise InputError(
                f"{who}: '{name}' is {'missing' if name not in document else f'{value!r:.60}'}, which it cannot be; "
                "restore the file it was copied from."
            )


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite_number(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text[:20])


def _whole_number(text: str) -> int:
    return int(text) if len(text) <= LONGEST_NUMBER else _no_number(f"{text[:20]}…")


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def writable_folder(out: str) -> Path:
    """The folder of that name, made now: what cannot be written is refused before any work is done.

    What killed processes were writing there is removed.

    Raises:
        InputError: If it cannot be made or written.
    """
    path = Path(out).expanduser()
    probe = beside(path / "probe")
    if not out.strip():
        raise InputError("out=: name a folder to write to.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        sweep(path)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"out={out}: cannot be written ({error.strerror}); choose another folder.") from error
    return path


@contextlib.contextmanager
def whole_directory(path: str | Path, replace: bool = True) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that takes its place at the end, unless an error is raised.

    Args:
        replace: Whether a folder that is there already gives way; if not, OSError is raised, also where the folder
            appeared while this one was being filled.
    """
    path = Path(path).expanduser()
    new, old = beside(path), beside(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, path.name)
        new.mkdir()
    try:
        with held(new):
            with writing(path, new):
                yield new
            with writing(path):
                _flush(new)
                if replace and path.exists():
                    os.replace(path, old)
                os.replace(new, path)
    finally:
        if old.exists() and not path.exists():  # the new one could not take its place
            os.replace(old, path)
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Let all files of a folder reach the disk: their names must not be there before what is in them."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _refusal(folder: Path) -> OSError | None:
    """What the system says of one more file in a folder; None where it takes it."""
    probe = beside(folder / "probe")
    try:
        with probe.open("xb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return OSError(error.errno, error.strerror)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return None


def _is_of(error: OSError, path: Path) -> bool:
    """Whether the system said it of a path, or of an open file, which has no name; of a copy it names both ends."""
    names = [name for name in (error.filename, error.filename2) if name is not None]
    return error.errno is not None and (not names or any(Path(name).is_relative_to(path) for name in names))
