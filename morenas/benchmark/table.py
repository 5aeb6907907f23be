"""The table of a tabular problem: what every architecture reached when it was trained alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from morenas.base.errors import InputError, suggest
from morenas.selection.evidence import Picks

FORMAT = "morenas.tabular/1"
METADATA = b"morenas"  # key of the schema's metadata
TABLE = Path(str(files("morenas") / "assets" / "tabular" / "demo.parquet"))
SCHEMA = pa.schema(
    {
        "task": pa.string(),
        "architecture": pa.list_(pa.int8()),
        "seed": pa.int8(),
        "params": pa.int32(),
        "seconds": pa.float32(),
        "curve": pa.list_(pa.float32()),
        "test_loss": pa.float32(),
        "test_accuracy": pa.float32(),
        "select_loss": pa.float32(),
    }
)
"""A row is one training; ``seconds`` is its share of the cohort that it was trained in."""


class ArchitectureTable:
    """What came of training every architecture alone: queries by task and picks.

    Attributes:
        metadata: How the table was made: recipe, space, data, model, versions.
        tasks: Names of the tasks.
        seeds: Seeds of every architecture.
        curve_steps: Optimizer steps after which a curve has its points.
    """

    def __init__(self, path: str | Path = TABLE) -> None:
        """Read a table.

        Raises:
            InputError: If the file is missing, no table, or lacks trainings.
        """
        raw = _read(path)
        self.metadata: dict[str, Any] = json.loads(raw.schema.metadata[METADATA])
        self.tasks: tuple[str, ...] = tuple(self.metadata["tasks"])
        self.seeds = tuple(range(self.metadata["seeds"]))
        self.curve_steps: tuple[int, ...] = tuple(self.metadata["curve"]["steps"])
        rows = raw.to_pylist()
        self._params = {tuple(row["architecture"]): int(row["params"]) for row in rows}
        self._index = {picks: index for index, picks in enumerate(sorted(self._params))}
        self._places = {(row["task"], tuple(row["architecture"]), row["seed"]): place for place, row in enumerate(rows)}
        if len(self._places) != len(rows) or len(rows) != len(self.tasks) * len(self._index) * len(self.seeds):
            raise InputError(f"{path}: {len(rows):,} rows are not one a task, architecture and seed; build it again.")
        self._columns = {
            (task, name): self._cube(rows, task, name)
            for task in self.tasks
            for name in ("test_loss", "test_accuracy", "select_loss", "seconds", "curve")
        }

    def _cube(self, rows: Sequence[Mapping[str, Any]], task: str, name: str) -> NDArray[np.float64]:
        """A column of a task, shape ``(architectures, seeds)`` or ``(architectures, seeds, points)``."""
        values = [[rows[self._places[task, picks, seed]][name] for seed in self.seeds] for picks in self._index]
        return np.asarray(values, dtype=np.float64)

    def architectures(self, budget: int | None = None, spent: bool = False) -> list[Picks]:
        """Every architecture of at most ``budget`` parameters, in product order.

        Args:
            spent: Leave those out of which a single choice could be a dearer one within the budget, as
                ``morenas.space.sample_architecture`` does.
        """
        within = [picks for picks in self._index if budget is None or self._params[picks] <= budget]
        return [picks for picks in within if not self._could_grow(picks, budget)] if spent else within

    def _could_grow(self, picks: Picks, budget: int | None) -> bool:
        changed = ((*picks[:at], pick, *picks[at + 1 :]) for at in range(len(picks)) for pick in self._choices())
        return any(
            self._params[other] > self._params[picks] and (budget is None or self._params[other] <= budget)
            for other in changed
        )

    def _choices(self) -> range:
        return range(len(self.metadata["choices"]))

    def params(self, picks: Sequence[int]) -> int:
        """Adapter parameters."""
        return self._params[self._known(picks)]

    def loss(self, task: str, picks: Sequence[int]) -> float:
        """Test loss, mean over seeds: the truth that methods are judged by."""
        return float(self.losses(task, picks).mean())

    def losses(self, task: str, picks: Sequence[int]) -> NDArray[np.float64]:
        """Test loss of every seed."""
        return self._values(task, "test_loss", picks)

    def accuracies(self, task: str, picks: Sequence[int]) -> NDArray[np.float64]:
        """Test accuracy of every seed."""
        return self._values(task, "test_accuracy", picks)

    def select_losses(self, task: str, picks: Sequence[int]) -> NDArray[np.float64]:
        """Loss of every seed on ``select``, which a method may look at."""
        return self._values(task, "select_loss", picks)

    def seconds(self, task: str, picks: Sequence[int]) -> NDArray[np.float64]:
        """Seconds of every seed's training, evaluations included."""
        return self._values(task, "seconds", picks)

    def curves(self, task: str, picks: Sequence[int]) -> NDArray[np.float64]:
        """Loss on the first test examples after each of ``curve_steps``, shape ``(seeds, points)``."""
        return self._values(task, "curve", picks)

    def best(self, task: str, budget: int | None = None) -> Picks:
        """The architecture of the least loss under a budget.

        Raises:
            InputError: If none is under the budget.
        """
        return min(self._some(budget), key=lambda picks: self.loss(task, picks))

    def random(self, task: str, budget: int | None = None) -> float:
        """Mean loss of the architectures that spend a budget, every one counted once."""
        return float(np.mean([self.loss(task, picks) for picks in self._some(budget, spent=True)]))

    def _some(self, budget: int | None, spent: bool = False) -> list[Picks]:
        if found := self.architectures(budget, spent):
            return found
        raise InputError(f"tabular: no architecture has at most {budget} parameters; raise the budget.")

    def _values(self, task: str, name: str, picks: Sequence[int]) -> NDArray[np.float64]:
        if task not in self.tasks:
            raise InputError(
                f"tabular: no task {task!r}; choose from {', '.join(self.tasks)}{suggest(task, self.tasks)}"
            )
        return self._columns[task, name][self._index[self._known(picks)]]

    def _known(self, picks: Sequence[int]) -> Picks:
        if (known := tuple(picks)) in self._index:
            return known
        groups, choices = self.metadata["groups"], self.metadata["choices"]
        raise InputError(
            f"tabular: no architecture {known}; give a choice index below {len(choices)} for each of "
            f"{len(groups)} groups."
        )


def _read(path: str | Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{path}: the table cannot be read ({error}); build it again (scripts/build_tabular.py)."
        ) from error
    made = json.loads((table.schema.metadata or {}).get(METADATA, b"{}"))
    if made.get("format") != FORMAT or table.schema.names != SCHEMA.names:
        raise InputError(f"{path}: no table of format {FORMAT}; build it again (scripts/build_tabular.py).")
    return table
