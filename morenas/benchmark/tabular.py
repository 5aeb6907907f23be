"""A small search problem whose every architecture was trained alone: the problem, and the table of what came of it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from morenas.base.errors import InputError
from morenas.benchmark.batches import ShuffledBatches
from morenas.benchmark.cohort import Cohort, train
from morenas.benchmark.problem import Batch, Recipe, Shapes
from morenas.benchmark.table import Picks
from morenas.benchmark.tasks import Statement, generate
from morenas.models import load_pretrained, target_linears
from morenas.space import Choice, SearchSpace, build_space

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


def _encode(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Statement]) -> dict[str, Tensor]:
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
