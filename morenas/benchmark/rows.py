"""What the bench measured: one row per problem, method and search seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from morenas.base.errors import InputError
from morenas.benchmark.measures import normalized_regret


@dataclass(frozen=True)
class BenchmarkRow:
    """One search and what it found.

    Attributes:
        table: "planted" or "tabular".
        family: Family of a planted problem, or task of a table.
        problem: Number of the problem in its family.
        seed: Of the search.
        shapes: Module name to ``(nblocks, blk_r)``; a module without an adapter is absent, or has ``blk_r`` 0.
        params: Adapter parameters of the found architecture.
        budget: Adapter parameters that were allowed.
        loss: Test loss of the found architecture trained alone, mean over training seeds.
        best: Test loss of the best there is, trained alone.
        random: The same, mean over random architectures of this budget.
        recovered: Share of modules whose ``(nblocks, blk_r)`` is the planted one; None where nothing was planted.
        passes: Forward-backward passes of the search, of batches of the same size.
        final_passes: Of one training alone.
        seconds: Of the search.
        final_seconds: Of one training alone.
        details: Further measures by name: those of ``measures.scored``, and test losses of the relaxed supernet
            ("relaxed"), of the found architecture with the supernet's weights ("inherited") and of it trained alone
            ("retrained").
        curve: Pairs of passes spent and alone-trained loss of the incumbent from there on.
        right_side: ``measures.right_side``; None where nothing was planted.
        final_loss: Test loss at the end of the method's own run: of ours the found adapter trained on; of a control
            what it found, trained for what is left of as many passes as ours, or for one training where that is more.
        total: Passes of that run, search and training together, in trainings alone.
    """

    table: str
    family: str
    problem: int
    method: str
    seed: int
    shapes: Mapping[str, tuple[int, int]]
    params: int
    budget: int
    loss: float
    best: float
    random: float
    recovered: float | None
    passes: float
    final_passes: float
    seconds: float
    final_seconds: float
    details: Mapping[str, float] = field(default_factory=dict)
    curve: list[list[float]] = field(default_factory=list)
    right_side: float | None = None
    final_loss: float | None = None
    total: float | None = None

    def __post_init__(self) -> None:
        """Bring shapes and curve to one form, so that a row equals what is read back of it."""
        object.__setattr__(self, "shapes", {name: (int(n), int(r)) for name, (n, r) in self.shapes.items()})
        object.__setattr__(self, "curve", [[float(passes), float(loss)] for passes, loss in self.curve])

    @property
    def key(self) -> tuple[str, str, int, str, int]:
        """What is distinct for every row."""
        return self.table, self.family, self.problem, self.method, self.seed

    @property
    def regret(self) -> float:
        """Normalized regret; 0 is the best there is, 1 the mean random architecture."""
        return self.normalized(self.loss)

    @property
    def cost(self) -> float:
        """Search and final training, in trainings alone."""
        return (self.passes + self.final_passes) / self.final_passes

    def normalized(self, loss: float) -> float:
        """Normalized regret of a loss on this row's problem.

        Raises:
            ValueError: As ``measures.normalized_regret``; names the row.
        """
        try:
            return normalized_regret(loss, self.best, self.random)
        except ValueError as error:
            raise ValueError(f"{'/'.join(map(str, self.key))}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        return asdict(self) | {"shapes": shapes, "details": dict(self.details)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> BenchmarkRow:
        """The row that ``to_dict`` gave.

        Raises:
            InputError: If a field is missing or unknown.
        """
        try:
            return cls(**document)
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"row of a bench: {error}; make the rows again with this version.") from error
