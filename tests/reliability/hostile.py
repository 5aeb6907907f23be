"""Documents that nobody should write, for the readers of the package."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morenas.base.errors import InputError

SECONDS = 2.0
LOADING = 60.0
"""Seconds where a whole model is loaded, and its library for the first time."""
DEEP = "[" * 100_000 + "]" * 100_000
TEXTS = (
    "",
    "null",
    "[]",
    '"text"',
    "{",
    "\ufeff{}",
    DEEP,
    '{"a": ' * 5000 + "1" + "}" * 5000,
    "NaN",
    '{"a": 1e999}',
    f'{{"a": {"9" * 6000}}}',
    '{"a": "\\ud800"}',
    "\x00" * 1000,
)
"""Files that are no document of ours."""

WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["${oc.env:HOME}", "../../etc/passwd", "/dev/zero", "a|b\n|c", "=1+1", "[red]x[/blue]", "\x1b[2J", "\0"]
    ),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)
"""Values in the place of others."""


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a document."""
    inside = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path, *(place for key, value in inside for place in places(value, (*path, key)))]


@st.composite
def changed(draw: Callable[..., Any], document: Any) -> Any:
    """A document of which one value is missing, twice as deep, or another one."""
    copy = json.loads(json.dumps(document))
    place = draw(st.sampled_from(places(copy)))
    if not place:
        return draw(WRONG)
    holder = copy
    for key in place[:-1]:
        holder = holder[key]
    if draw(st.booleans()):
        holder[place[-1]] = draw(WRONG)
    else:
        del holder[place[-1]]
    return copy


@st.composite
def damaged(draw: Callable[..., Any], whole: bytes) -> bytes:
    """A file that was cut short, or of which a few bytes are others."""
    if draw(st.booleans()):
        return whole[: draw(st.integers(0, len(whole) - 1))]
    changed = bytearray(whole)
    for place in draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=8)):
        changed[place] = draw(st.integers(0, 255))
    return bytes(changed)


def written(path: Path, document: Any) -> Path:
    """A file of a document, or of a text as it is."""
    text = document if isinstance(document, str) and document in TEXTS else json.dumps(document)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


def safetensors(header: Any, data: bytes = b"\0" * 64) -> bytes:
    """A safetensors file of any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + data


def refuses(read: Callable[[], object], seconds: float = SECONDS) -> bool:
    """Whether a reader refuses what it is given, or takes it; no other error, and in time of the processor.

    The machine may be busy with other things.
    """
    began, refused = time.process_time(), False
    try:
        read()
    except InputError as error:
        assert str(error).strip() and len(str(error)) < 5000
        refused = True
    assert time.process_time() - began < seconds
    return refused


def try_all(documents: st.SearchStrategy[Any], examples: int, check: Callable[[Any], object]) -> int:
    """Check many documents, the same ones every time; how many were different."""
    tried: set[str] = set()
    checks = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large)

    @settings(max_examples=examples, derandomize=True, deadline=None, suppress_health_check=checks, database=None)
    @given(documents)
    def each(document: Any) -> None:
        tried.add(repr(document))
        check(document)

    each()
    return len(tried)


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)
