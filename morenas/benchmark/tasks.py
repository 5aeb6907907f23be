"""Generated tasks of the tabular bench, in the demo's language abridged to the words that matter.

    majority   mia keeps red box              of owner, colour and thing, are two in the first half of their lists?
    order      mia box </s> tom cup           does the first thing come before the second in the list of things?

`majority` gathers three words of one statement; `order` compares one word of each of two. Sequences of a task are of
one length, so that nothing is padded. Contents never occur twice, in one split or in two, and every split holds as
many examples of either label.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from morenas.base.errors import InputError, suggest
from morenas.tasks.sources.demo import COLOURS, NAMES, THINGS, Fact, draw_facts

DATA_SEED = 625  # the same examples for every run
SIZES: Mapping[str, int] = {"search_train": 1600, "search_val": 800, "select": 400, "test": 1000}
"""Split to its examples; even, because labels alternate."""


@dataclass(frozen=True)
class Statement:
    """One or two texts, and whether the task's answer is yes (1) or no (0)."""

    texts: tuple[str, ...]
    label: int


def _first_half(word: str, words: Sequence[str]) -> bool:
    return words.index(word) < len(words) // 2


def majority(facts: Sequence[Fact]) -> Statement:
    """Two or three of owner, colour and thing are in the first half of their lists."""
    who, does, colour, thing = facts[0]
    votes = _first_half(who, NAMES) + _first_half(colour, COLOURS) + _first_half(thing, THINGS)
    return Statement((f"{who} {does} {colour} {thing}",), int(votes >= 2))


def order(facts: Sequence[Fact]) -> Statement:
    """The first thing comes before the second in the list of things."""
    (who, _, _, thing), (other, _, _, second) = facts
    return Statement((f"{who} {thing}", f"{other} {second}"), int(THINGS.index(thing) < THINGS.index(second)))


TASKS: Mapping[str, tuple[Callable[[Sequence[Fact]], Statement], int]] = {
    "majority": (majority, 1),
    "order": (order, 2),
}
"""Name to the task and the facts that an example is made of."""


def generate(task: str, seed: int = DATA_SEED, sizes: Mapping[str, int] = SIZES) -> dict[str, list[Statement]]:
    """Generate the splits of a task, disjoint by content.

    Returns:
        Split to its examples, whose labels alternate.
    Raises:
        InputError: If the task is unknown.
    """
    if task not in TASKS:
        raise InputError(f"benchmark task {task!r}: choose from {', '.join(TASKS)}{suggest(task, TASKS)}")
    make, facts = TASKS[task]
    rng = random.Random(f"tabular/{task}/{seed}")
    seen: set[tuple[str, ...]] = set()
    return {
        split: [_draw(rng, make, facts, label=index % 2, seen=seen) for index in range(size)]
        for split, size in sizes.items()
    }


def _draw(
    rng: random.Random,
    make: Callable[[Sequence[Fact]], Statement],
    facts: int,
    label: int,
    seen: set[tuple[str, ...]],
) -> Statement:
    """Draw an example of ``label`` whose texts were not drawn before."""
    while True:
        example = make(draw_facts(rng, facts))
        if example.label == label and example.texts not in seen:
            seen.add(example.texts)
            return example
