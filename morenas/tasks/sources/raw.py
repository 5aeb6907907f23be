"""Examples as a source gives them, before labels are checked and splits are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

RawRow = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of a data set.

    Attributes:
        name: What messages call it, such as the file's name.
        rows: One mapping of column to value an example.
        lines: Line of each row in its file; empty where rows have no lines.
        shards: The tables that it was joined from, in order; empty where it was not.
    """

    name: str
    rows: list[RawRow]
    lines: list[int] = field(default_factory=list)
    shards: tuple[Table, ...] = ()

    def place(self, index: int) -> str:
        """Where a row is, for messages."""
        for shard in self.shards:
            if index < len(shard.rows):
                return shard.place(index)
            index -= len(shard.rows)
        return f"{self.name}, line {self.lines[index]}" if self.lines else f"{self.name}, row {index}"


@dataclass(frozen=True)
class Raw:
    """What a source gives.

    Attributes:
        train: Examples to train on; None for a part of a mix that is only tested.
        tests: Test sets by their name in the results.
        provenance: Where the examples come from, for ``results.json``: plain values.
    """

    train: Table | None
    tests: dict[str, Table]
    provenance: dict[str, Any]
