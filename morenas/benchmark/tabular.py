"""A small search problem whose every architecture was trained alone: the problem, and the table of what came of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from morenas.base.errors import InputError, suggest
from morenas.benchmark.batches import ShuffledBatches
from morenas.benchmark.cohort import Cohort, train
from morenas.benchmark.problem import Batch, Recipe, Shapes
from morenas.benchmark.tasks import Example, generate
from morenas.models import load_pretrained, target_linears
from morenas.space import Choice, SearchSpace, build_space

Picks = tuple[int, ...]
"""An architecture of the table: choice index of each group."""

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

SPLITS: Mapping[str, tuple[str, ...]] = {
    "search_train": ("search_train",),
    "search_val": ("search_val",),
    "select": ("select",),
    "final": ("search_train", "search_val"),
    "test": ("test",),
}
"""Split to the generated splits that it holds; the final training is on both of the search's."""

NBLOCKS, RANKS, GRANULARITY = (1, 4), (0, 1, 2), "layer"
RECIPE = Recipe(steps=100, learning_rate=3e-3, batch_size=16)
BUDGET = 0.4  # of the largest architecture's parameters
CURVE_STEPS = (12, 25, 37, 50, 62, 75, 87, 100)
CURVE_EXAMPLES = 128  # of test: what a curve is measured on
AT_ONCE = 50  # examples a member in an evaluation pass


class TabularTask:
    """The search problem that the table enumerates; see ``morenas.benchmark.problem.Problem``.

    Attributes:
        model: The demo's transformer, frozen, its head always started the same; methods change it in place and give
            it back as it came.
        modules: Name to ``(in_features, out_features)`` of every searched layer.
        head: Modules that are trained whole beside the adapters.
        space: 5 choices for each of 4 layers.
    """

    table = "tabular"
    number = 0
    planted: Shapes | None = None

    def __init__(self, name: str, budget: float = BUDGET) -> None:
        """Load the demo's transformer and generate the task ``name``.

        Args:
            budget: Share of the largest architecture's parameters.
        Raises:
            InputError: If the task is unknown.
        """
        self.family, self.recipe = name, RECIPE
        splits = generate(name)
        pretrained = load_pretrained("demo", num_labels=2, label_names=["no", "yes"])
        self.model: nn.Module = _first_token_only(pretrained.model.requires_grad_(False).eval())
        self.head, self.fingerprint = pretrained.head, pretrained.fingerprint
        self.modules = target_linears(self.model, exclude=self.head)
        self.space: SearchSpace = build_space(self.modules, NBLOCKS, RANKS, GRANULARITY)
        self.budget = int(budget * int(self.space.costs().max(dim=1).values.sum()))
        self._data = _join({split: _encode(pretrained.tokenizer, rows) for split, rows in splits.items()})

    def examples(self, split: str) -> Batch:
        """A whole split, ``input_ids`` ``(examples, tokens)`` without padding and ``labels``, as one batch."""
        return self._data[split]

    def batches(self, split: str, seed: int) -> ShuffledBatches:
        """The batches of a split, endlessly, shuffled anew each epoch."""
        return ShuffledBatches(self._data[split], self.recipe.batch_size, seed, "tabular")

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy of every example."""
        return F.cross_entropy(_logits(model, batch), batch["labels"], reduction="none")

    def architectures(self) -> list[Picks]:
        """Every architecture, in product order."""
        return list(itertools.product(range(len(self.space.choices)), repeat=len(self.space.groups)))

    def params(self, picks: Sequence[int]) -> int:
        """Adapter parameters of an architecture."""
        return sum(row[pick] for row, pick in zip(self.space.costs().tolist(), picks, strict=True))

    def picks(self, shapes: Shapes) -> Picks:
        """The choice index of every group of an architecture that is spelled out by module.

        Raises:
            InputError: If modules of a group differ, or have a shape that is no choice.
        """
        return tuple(self._pick(group, shapes) for group in self.space.groups)

    def _pick(self, group: str, shapes: Shapes) -> int:
        none = Choice(1, 0)
        taken = {Choice(*shapes.get(name, none)) for name in self.space.groups[group]}
        choices = {none if not choice.blk_r else choice for choice in taken}
        if len(choices) > 1 or not choices <= set(self.space.choices):
            raise InputError(
                f"tabular: '{group}' has {', '.join(map(str, sorted(choices)))}; the table holds one choice a "
                f"group, of {', '.join(map(str, self.space.choices))}."
            )
        return self.space.choices.index(choices.pop())


def train_rows(
    task: TabularTask, architectures: Sequence[Picks], seed: int, steps: int | None = None
) -> list[dict[str, Any]]:
    """Train architectures side by side, each as if alone, and measure them as the rows of the table say.

    What comes of a member depends, up to rounding, on its picks and the seed alone.

    Args:
        steps: Where to stop short of the recipe's end; the schedule stays.
    Returns:
        ``curve``, ``test_loss``, ``test_accuracy`` and ``select_loss`` of each.
    """
    recipe, curve = task.recipe, []
    members = [task.space.shapes(picks) for picks in architectures]
    with Cohort(task.model, task.modules, members, task.head, seed) as cohort:

        def follow(step: int) -> None:
            if step in CURVE_STEPS:
                curve.append(_evaluate(task, cohort, "test", CURVE_EXAMPLES)[0])

        train(
            cohort,
            task.losses,
            task.batches("final", seed),
            steps or recipe.steps,
            recipe.learning_rate,
            recipe.weight_decay,
            recipe.max_grad_norm,
            total=recipe.steps,
            after=follow,
        )
        loss, accuracy = _evaluate(task, cohort, "test")
        select, _ = _evaluate(task, cohort, "select")
    points = torch.stack(curve, dim=1).tolist() if curve else [[] for _ in members]
    columns = (points, loss.tolist(), accuracy.tolist(), select.tolist())
    names = ("curve", "test_loss", "test_accuracy", "select_loss")
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


class Table:
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


@torch.no_grad()
def _evaluate(task: TabularTask, cohort: Cohort, split: str, examples: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and accuracy of every member on the first ``examples``, each ``(members,)``."""
    whole = {key: value[:examples] for key, value in task.examples(split).items()}
    number = len(whole["labels"])
    loss, right = torch.zeros(cohort.size), torch.zeros(cohort.size)
    for start in range(0, number, AT_ONCE):
        batch = cohort.repeat({key: value[start : start + AT_ONCE] for key, value in whole.items()})
        logits = _logits(cohort.model, batch)
        loss += F.cross_entropy(logits, batch["labels"], reduction="none").view(cohort.size, -1).sum(1)
        right += (logits.argmax(1) == batch["labels"]).view(cohort.size, -1).sum(1)
    return loss / number, right / number


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    logits: Tensor = model(input_ids=batch["input_ids"]).logits
    return logits


def _encode(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> dict[str, Tensor]:
    texts = [list(column) for column in zip(*(example.texts for example in examples), strict=True)]
    ids = tokenizer(*texts, return_tensors="pt")["input_ids"]
    return {"input_ids": ids, "labels": torch.tensor([example.label for example in examples])}


def _join(encoded: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Batch]:
    """The splits of ``SPLITS`` from those that were generated."""
    return {
        split: {key: torch.cat([encoded[part][key] for part in parts]) for key in ("input_ids", "labels")}
        for split, parts in SPLITS.items()
    }


def _first_token_only(model: nn.Module) -> nn.Module:
    """Let the last layer compute its first token alone, which is all the head reads: the same logits, a fifth less."""
    layers = model.get_submodule("roberta.encoder.layer")
    attention = layers.get_submodule(f"{len(list(layers.children())) - 1}.attention")
    attention.get_submodule("self").register_forward_hook(_first_of_output)
    attention.get_submodule("output").register_forward_pre_hook(_first_of_inputs)
    return model


def _first_of_output(module: nn.Module, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> tuple[Any, ...]:
    return (output[0][:, :1], *output[1:])


def _first_of_inputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x[:, :1] for x in inputs)
