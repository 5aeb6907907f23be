"""The demo: a controlled language, and a task in it that needs more than the pretrained features.

A premise states who does what with which thing; a hypothesis states one fact. The task: does the premise say so?

    premise     mia keeps the red box . tom sells the blue key . eva finds the green cup .
    hypothesis  tom sells the blue key .        yes
    hypothesis  tom sells the pink key .        no: nothing is pink

A false hypothesis has one word that the premise does not hold; every word is as frequent in true ones as in false
ones, so the two texts must be compared.

The packaged model was pretrained on premises followed by their facts in another order, with some words masked: it has
learnt to compare the two texts in order to fill words in, and has never seen a false fact. Its features
alone are of little use for the task (a trained head reaches 0.6, guessing 0.5); adapters turn the comparison into an
answer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from morenas.tasks.sources.raw import Raw, Table
from morenas.tasks.spec import TaskSpec

NAMES = ["mia", "tom", "eva", "max", "lea", "ben", "ida", "leo", "ada", "jon", "zoe", "sam"]
VERBS = ["keeps", "sells", "finds", "wants", "buys", "hides"]
COLOURS = ["red", "blue", "green", "black", "white", "gold", "pink", "grey"]
THINGS = ["box", "key", "cup", "hat", "pen", "bag", "map", "ring", "lamp", "coin"]
FILLERS = ["the", "."]
WORD_KINDS = (NAMES, VERBS, COLOURS, THINGS)
WORDS = (*NAMES, *VERBS, *COLOURS, *THINGS, *FILLERS)
"""The whole vocabulary."""

FACTS = 3  # facts in a premise
TRAIN, TEST = 3200, 1000  # examples
DATA_SEED = 2408  # the same examples for every run: a run's seed decides the splits

Fact = tuple[str, str, str, str]


def sentence(fact: Fact) -> str:
    """Spell a fact: who, does what, which colour, which thing."""
    who, does, colour, thing = fact
    return f"{who} {does} the {colour} {thing} ."


def draw_facts(rng: random.Random, count: int = FACTS) -> list[Fact]:
    """Draw facts that share no word."""
    columns = [rng.sample(words, count) for words in (NAMES, VERBS, COLOURS, THINGS)]
    return [(who, does, colour, thing) for who, does, colour, thing in zip(*columns, strict=True)]


def falsify(rng: random.Random, facts: Sequence[Fact], index: int) -> Fact:
    """Replace one word of fact ``index`` by one of the same kind that the premise does not hold."""
    place = rng.randrange(4)
    changed = list(facts[index])
    changed[place] = rng.choice([word for word in WORD_KINDS[place] if all(word != fact[place] for fact in facts)])
    who, does, colour, thing = changed
    return who, does, colour, thing


def pretraining_texts(seed: int) -> Iterator[tuple[str, str]]:
    """An endless stream of premises, each with the same facts in another order."""
    rng = random.Random(f"pretraining/{seed}")
    while True:
        facts = draw_facts(rng)
        yield " ".join(map(sentence, facts)), " ".join(map(sentence, rng.sample(facts, len(facts))))


def demo_examples(seed: int, train: int = TRAIN, test: int = TEST) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Generate the downstream task; labels alternate, and no premise occurs twice.

    Returns:
        Train and test rows with ``premise``, ``hypothesis`` and ``label`` (1: it follows).
    """
    rng = random.Random(f"downstream/{seed}")
    seen: set[str] = set()
    rows: list[dict[str, Any]] = []
    while len(rows) < train + test:
        facts, index = draw_facts(rng), rng.randrange(FACTS)
        premise, label = " ".join(map(sentence, facts)), len(rows) % 2
        if premise in seen:
            continue
        seen.add(premise)
        fact = facts[index] if label else falsify(rng, facts, index)
        rows.append({"premise": premise, "hypothesis": sentence(fact), "label": label})
    return rows[:train], rows[train:]


def read_demo(spec: TaskSpec) -> Raw:
    """The demo's examples as a source gives them."""
    train, test = demo_examples(DATA_SEED)
    provenance = {"source": "demo", "data_seed": DATA_SEED}
    return Raw(Table("demo train", train), {"test": Table("demo test", test)}, provenance)
