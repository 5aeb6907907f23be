"""Answers read out of generated text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morenas.tasks.answers import as_number, extract_answer, same_answer

CONTINUATION = "the correct answer is {answer}"
CHOICES = [
    ["true", "false"],
    [f"answer{number}" for number in range(1, 13)],
    ["solution1", "solution2"],
    ["New York", "New York City", "York"],
    ["c", "c++", "is", "answer"],
    ["1", "-1", "10"],
    ["yes", "Yes"],
]
TEXTS = st.text(st.characters(categories=["L", "N", "P"], include_characters=" "), min_size=1).map(str.strip)


@pytest.mark.parametrize("choices", CHOICES, ids=str)
@pytest.mark.parametrize("order", [1, -1])
def test_every_choice_is_read_out_of_its_own_continuation(choices: list[str], order: int) -> None:
    given = choices[::order]
    assert [extract_answer(CONTINUATION.format(answer=c), "choice", given) for c in given] == given


@settings(max_examples=300, deadline=None)
@given(
    choices=st.lists(TEXTS.filter(lambda text: bool(text) and "answer" not in text.lower()), min_size=2, unique=True)
)
def test_any_choices_are_read_out_of_their_continuations(choices: list[str]) -> None:
    assert [extract_answer(CONTINUATION.replace("{answer}", c), "choice", choices) for c in choices] == choices


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The correct answer is True.", "true"),
        ("False. No wait, the answer is true", "true"),
        ("that is untrue, so: false", "false"),
        ("Answer: FALSE", "false"),
        ("true or false? true", "true"),
        ("perhaps", None),
        ("", None),
    ],
)
def test_a_choice_is_a_whole_word_and_what_is_called_the_answer_comes_first(text: str, found: str | None) -> None:
    assert extract_answer(text, "choice", ["true", "false"]) == found


def test_one_choice_is_not_taken_for_another_that_it_begins() -> None:
    choices = ["answer1", "answer10"]
    assert extract_answer("answer10", "choice", choices) == "answer10"
    assert extract_answer("it is answer1, not answer10", "choice", choices) == "answer1"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("She has 3 + 4 = 7 apples.\n#### 7", "7"),
        ("#### 1,234\nQuestion: 5 and 6?", "1234"),
        ("There are 12 in 3 rows. The answer is 4. That took 2 steps", "4"),
        ("The answer is 3 + 4 = 7.", "7"),
        ("so he pays $1,234.50.", "1234.50"),
        ("The answer is -3", "-3"),
        ("The answer is -$3.", "-3"),
        ("The answer is $-3.", "-3"),
        ("10-3", "3"),
        ("about 25%", "25"),
        ("0.5 or .25", ".25"),
        ("it falls to \u22125", "-5"),
        ("1, 2, 3", "3"),
        ("no number", None),
        ("The answer is unknown, 9 perhaps", "9"),
    ],
)
def test_a_number_is_the_one_that_is_marked_else_the_last(text: str, found: str | None) -> None:
    assert extract_answer(text, "number", []) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The answer is (B).", "B"),
        ("Also, A) is too small and C) too large. The answer is D", "D"),
        ("the answer is (b)", "B"),
        ("B) 12", "B"),
        ("answer: B", "B"),
        ("Correct answer - E", "E"),
        ("Dividing gives 4, so C", "C"),
        ("The answer is a number", None),
        ("nothing", None),
    ],
)
def test_a_letter_is_the_one_that_is_marked_else_the_first_that_stands_alone(text: str, found: str | None) -> None:
    assert extract_answer(text, "letter", []) == found


@pytest.mark.parametrize(
    ("found", "expected", "kind", "same"),
    [
        ("7", "7.0", "number", True),
        ("1234", "1,234", "number", True),
        ("1.8333", "1.8333333333333335", "number", True),
        ("7.01", "7", "number", False),
        ("seven", "7", "number", False),
        (None, "7", "number", False),
        ("B", "B", "letter", True),
        ("true", "false", "choice", False),
        ("  A  dog\n", "a dog", "text", True),
        ("a dog", "a cat", "text", False),
    ],
)
def test_answers_are_compared_as_what_they_are(found: str | None, expected: str, kind: str, same: bool) -> None:
    assert same_answer(found, expected, kind) is same


@pytest.mark.parametrize(
    ("text", "value"), [("72.0", 72.0), ("1,234", 1234.0), ("$5", 5.0), ("-.5", -0.5), ("25%", 25)]
)
def test_a_number_is_read_in_any_usual_spelling(text: str, value: float) -> None:
    assert as_number(text) == value


@pytest.mark.parametrize("text", ["nan", "inf", "x", "", "1 2"])
def test_what_is_no_finite_number_is_none(text: str) -> None:
    assert as_number(text) is None


def test_text_is_stripped_and_empty_text_is_no_answer() -> None:
    assert extract_answer(" a dog \n", "text", []) == "a dog" and extract_answer(" \n", "text", []) is None
