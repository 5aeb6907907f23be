"""The generated tasks of the tabular bench."""

from __future__ import annotations

import itertools

import pytest

from morenas.base.errors import InputError
from morenas.benchmark.tasks import DATA_SEED, SIZES, TASKS, generate
from morenas.tasks.sources.demo import COLOURS, NAMES, THINGS, WORDS

Words = tuple[list[str], ...]


def words(texts: tuple[str, ...]) -> Words:
    return tuple(text.split() for text in texts)


@pytest.mark.parametrize("task", TASKS)
def test_splits_have_their_sizes_and_as_many_examples_of_either_label(task: str) -> None:
    splits = generate(task)
    assert {name: len(examples) for name, examples in splits.items()} == SIZES
    for examples in splits.values():
        assert 2 * sum(example.label for example in examples) == len(examples)


@pytest.mark.parametrize("task", TASKS)
def test_no_content_occurs_twice(task: str) -> None:
    examples = [example.texts for split in generate(task).values() for example in split]
    assert len(set(examples)) == len(examples) == sum(SIZES.values())


@pytest.mark.parametrize("task", TASKS)
def test_examples_are_of_one_length_and_in_the_words_of_the_demo(task: str) -> None:
    texts = [words(example.texts) for split in generate(task).values() for example in split]
    assert len({tuple(map(len, pair)) for pair in texts}) == 1
    assert {word for pair in texts for text in pair for word in text} <= set(WORDS)


@pytest.mark.parametrize("task", TASKS)
def test_the_seed_decides_the_examples(task: str) -> None:
    sizes = {"a": 20, "b": 10}
    assert generate(task, DATA_SEED, sizes) == generate(task, DATA_SEED, sizes)
    assert generate(task, DATA_SEED, sizes) != generate(task, DATA_SEED + 1, sizes)


def test_majority_asks_whether_two_of_three_words_are_in_the_first_half_of_their_lists() -> None:
    for example in generate("majority")["test"]:
        who, _, colour, thing = example.texts[0].split()
        early = (who in NAMES[:6]) + (colour in COLOURS[:4]) + (thing in THINGS[:5])
        assert example.label == (early >= 2)


def test_order_asks_which_thing_comes_first() -> None:
    for example in generate("order")["test"]:
        (_, first), (_, second) = words(example.texts)
        assert example.label == (THINGS.index(first) < THINGS.index(second))


def test_no_single_word_tells_the_answer() -> None:
    """Of examples with a given word, each label keeps a share, but at the ends of an order."""
    for task, kinds in {"majority": (NAMES, COLOURS, THINGS), "order": (NAMES, THINGS[1:-1])}.items():
        examples = list(itertools.chain(*generate(task).values()))
        for word in (word for kind in kinds for word in kind):
            labels = [example.label for example in examples if word in " ".join(example.texts).split()]
            assert 0.1 < sum(labels) / len(labels) < 0.9, (task, word)


def test_an_unknown_task_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="did you mean 'order'"):
        generate("ordre")
