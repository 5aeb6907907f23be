"""What is fixed before the runs: models, tasks, methods, learning rates, seeds, and in what order rows are run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

SEEDS = range(5)
OURS = "morenas"

MODELS = {
    "minilm-l3": "paraphrase-MiniLM-L3-v2-fp16",
    "minilm-l6": "all-MiniLM-L6-v2-fp16",
}


class Task(NamedTuple):
    """How a task is trained here, and the name of its main metric.

    Attributes:
        epochs: Passes of a fine-tune, enough for the select curve of LoRA r = 32 to flatten.
        files: Files by the names that the commands look for, both without their ending.
        words: Further words of the command line.
    """

    metric: str
    epochs: int
    files: Mapping[str, str]
    words: tuple[str, ...] = ()


WHOLE = {"train": "train", "validation": "validation"}
SUBSET = {"train": "train_subset", "validation": "train_subset_heldout"}
MATCHED = {"train": "train_subset", "validation_matched": "train_subset_heldout"}
TASKS = {
    "cola": Task("matthews_correlation", 3, WHOLE),
    "stsb": Task("pearson", 3, WHOLE),
    "mrpc": Task("accuracy", 4, WHOLE),
    "qqp": Task("accuracy", 2, SUBSET),
    "mnli": Task("accuracy", 2, MATCHED, ("~task.test_splits.test_mismatched",)),
    "rte": Task("accuracy", 8, WHOLE),
    "qnli": Task("accuracy", 2, {"train": "train_subset", "validation": "validation"}),
}
DEVELOPMENT = {("minilm-l3", "mrpc"), ("minilm-l3", "qqp")}
"""Models and tasks on which settings of ours were chosen: shown, and no part of a mean over tasks."""


class Method(NamedTuple):
    """A rival.

    Attributes:
        words: The command after ``python -m morenas.`` that runs it. A name in braces is that field of the row beside.
        rates: Learning rates that it is tried at, half a decade apart.
        beside: Method whose row of the same seed, at its best rate, says how large or how long this one is.
    """

    words: tuple[str, ...]
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    beside: str | None = None


SEARCH = ("search", "budget.lora_rank=32", "budget.fraction=0.05", "compare=none")
EQUAL = ("finetune", "method=equal_lora", "method.params={params}")
METHODS = {
    "lora-r1": Method(("finetune", "method=lora", "method.rank=1")),
    "lora-r32": Method(("finetune", "method=lora", "method.rank=32"), (1e-4, 3e-4, 1e-3)),
    OURS: Method(SEARCH),
    "morenas-two-run": Method((*SEARCH, "search.runs=2")),
    "morenas-no-steps": Method((*SEARCH, "search.arch_steps=0")),
    "morenas-lora-space": Method((*SEARCH, "space=lora")),
    "lora-equal": Method(EQUAL, beside=OURS),
    "lora-equal-passes": Method((*EQUAL, "training.epochs={passes}"), beside=OURS),
    "more-n4": Method(("finetune", "method=more", "method.nblocks=4", "method.blk_r=4", "method.link=monarch")),
    "vera": Method(("finetune", "method=vera"), (3e-3, 1e-2, 3e-2)),
    "psoft": Method(("finetune", "method=psoft", "method.rank=46"), (3e-4, 1e-3, 3e-3)),
    "full": Method(("finetune", "method=full"), (3e-5, 1e-4, 3e-4)),
}


class Row(NamedTuple):
    """One training."""

    model: str
    task: str
    method: str
    learning_rate: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.model}-{self.task}-{self.method}-{self.learning_rate:g}-{self.seed}"


Place = tuple[str, str, str]
"""Model, task and method."""
Known = Mapping[Row, Mapping[str, Any]]
"""Rows that are done, with what ``rows.json`` keeps of them."""


def rows_of(lines: Sequence[Mapping[str, Any]]) -> dict[Row, Mapping[str, Any]]:
    """The lines of ``rows.json`` by what they are."""
    return {Row(*(line[key] for key in Row._fields)): line for line in lines}


def missing(known: Known, models: Sequence[str], tasks: Sequence[str], methods: Sequence[str]) -> Iterator[Row]:
    """Rows that are not there and can be run now: learning rates at seed 0 for all, then seeds at the best of them."""
    places = [(model, task, method) for model in models for task in tasks for method in methods]
    trials = [Row(*place, rate, 0) for place in places for rate in rates_to_try(tried(known, place), place)]
    best = [(place, rate) for place in places if (rate := best_rate(known, place)) is not None]
    seeds = [Row(*place, rate, seed) for seed in SEEDS[1:] for place, rate in best]
    for row in (*trials, *seeds):
        if row not in known and (METHODS[row.method].beside is None or row_beside(known, row)):
            yield row


def row_beside(known: Known, row: Row) -> Mapping[str, Any] | None:
    """The row that says how large or how long this one is; None where it is not done."""
    beside = METHODS[row.method].beside
    place = (row.model, row.task, beside or row.method)
    rate = best_rate(known, place)
    return None if rate is None else known.get(Row(*place, rate, row.seed))


def tried(known: Known, place: Place) -> dict[float, float]:
    """Select metric at seed 0 by learning rate, from the lowest."""
    found = {
        row.learning_rate: float(line["select"]) for row, line in known.items() if row[:3] == place and not row.seed
    }
    return dict(sorted(found.items()))


def rates_to_try(found: Mapping[float, float], place: Place) -> list[float]:
    """The grid of a method, and one half-decade past it where the best of the grid lies at its end."""
    rates = METHODS[place[2]].rates
    if not set(rates) <= set(found):
        return list(rates)
    best = max(rates, key=lambda rate: found[rate])
    further = {rates[0]: half_decade(rates[0], down=True), rates[-1]: half_decade(rates[-1], down=False)}
    return [*rates, *([further[best]] if best in further else [])]


def best_rate(known: Known, place: Place) -> float | None:
    """The learning rate of highest select metric at seed 0, the lower of equals; None before the trials are done."""
    found = tried(known, place)
    done = set(rates_to_try(found, place)) <= set(found)
    return max(found, key=lambda rate: found[rate]) if done else None


def half_decade(rate: float, down: bool) -> float:
    """The neighbour of a rate on the grid 1e-4, 3e-4, 1e-3, …"""
    one = f"{rate:.0e}".startswith("1")
    factor = (1 / 3.0 if not one else 0.3) if down else (3.0 if one else 10 / 3.0)
    return float(f"{rate * factor:.0e}")
