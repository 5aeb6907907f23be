"""Examples as a source gives them, before labels are checked and splits are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows and a name to call them by in messages; ``lines[i]`` is where row i stands, where that is known."""

    name: str
    rows: list[Row]
    lines: list[int] = field(default_factory=list)

    def place(self, index: int) -> str:
        """Where a row is, for messages."""
        return f"{self.name}, line {self.lines[index]}" if self.lines else f"{self.name}, row {index}"


@dataclass(frozen=True)
class Raw:
    """A train table, test tables by their name in the results, and where all of it came from.

    ``train`` is None for a part of a mix that is only tested.
    """

    train: Table | None
    tests: dict[str, Table]
    provenance: dict[str, Any]
