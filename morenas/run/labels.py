"""What several processes print on one console, told apart."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import Any


class Labelled(io.TextIOBase):
    """A stream whose lines begin with a label, and are handed on whole, so that those of others do not break them."""

    def __init__(self, stream: Any, label: str) -> None:
        self._stream, self._label, self._begun = stream, label, ""

    @property
    def encoding(self) -> Any:  # type: ignore[override]
        return self._stream.encoding

    def fileno(self) -> int:
        return int(self._stream.fileno())

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun = f"{self._begun}{text}".split("\n")
        if lines:
            self._stream.write("".join(f"{self._label}{line}\n" for line in lines))
            self._stream.flush()
        return len(text)

    def finish(self) -> None:
        """Hand on a last line that has no end."""
        if self._begun:
            self.write("\n")


@contextlib.contextmanager
def labelled(label: str) -> Iterator[None]:
    """Begin every line that is printed inside with a label."""
    out, error = Labelled(sys.stdout, label), Labelled(sys.stderr, label)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            yield
        finally:
            out.finish()
            error.finish()
