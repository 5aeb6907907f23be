"""Read answers out of generated text.

LLM-Adapters' ``commonsense_evaluate.py`` and ``evaluate.py`` (Hu et al. 2023) take the first choice, the last number,
or the first of the letters A to E, wherever it stands. This code differs:

- A choice or letter counts as a whole word only: "untrue" is not "true", "answer10" is not "answer1", and the A of
  "Also" is no answer. Upper and lower case of choices are the same.
- What follows words such as "the answer is" or "####" goes before what stands elsewhere.
- A number's commas, currency and percent signs are dropped, and the minus of "10-3" is not a sign.

Outputs in the words that models are trained on here ("the correct answer is answer2", "The answer is 7.", "#### 72",
"The answer is (B).") give the same answer in both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

TOLERANCE = 1e-3  # between numbers, as in LLM-Adapters' evaluate.py
_MARKS = ("the correct answer is", "answer is", "answer:")
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(rf"(?:(?<![\w)\]])-)?(?:[$£€]\s?-?)?(?:{_DIGITS})")
_ANSWER_IS = re.compile(r"(?i:answer(?:\s+is)?)\s*[:\-]?\s*(?i:option\s+)?(?:\(([A-Ea-e])\)|([A-E])(?![\w']))")
_OPTION = re.compile(r"(?<!\w)\(?([A-E])\s?\)")
_CAPITAL = re.compile(r"(?<!\w)([A-E])(?!\w)")


def extract_answer(text: str, kind: str, choices: Sequence[str]) -> str | None:
    """Read an answer out of generated text.

    Invariant: out of ``the correct answer is <choice>`` it reads that choice, for every one of ``choices``.

    Args:
        kind: "choice", "number", "letter" or "text", as ``TaskSpec.answer``.
        choices: What a "choice" is taken from; not used by the other kinds.
    Returns:
        The choice as spelled in ``choices``, the number in plain digits, the letter A to E, or the text stripped;
        None where there is none.
    """
    if kind == "choice":
        return _choice(text, choices)
    if kind == "number":
        return _number(text)
    if kind == "letter":
        return _letter(text)
    return text.strip() or None


def same_answer(found: str | None, expected: str, kind: str) -> bool:
    """Whether an answer is the expected one: numbers within 0.001, texts without regard to white space and case."""
    if found is None:
        return False
    if kind == "number":
        one, other = as_number(found), as_number(expected)
        return one is not None and other is not None and abs(one - other) <= TOLERANCE
    if kind == "text":
        return found.casefold().split() == expected.casefold().split()
    return found == expected


def as_number(text: str) -> float | None:
    """A text, such as "1,234", "$5" or "72.0", as a finite number; None if it is no number."""
    plain = text.strip().removesuffix("%").removeprefix("$").replace(",", "")
    try:
        value = float(plain)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _choice(text: str, choices: Sequence[str]) -> str | None:
    for mark in _MARKS:
        at = re.search(mark, text, re.IGNORECASE)
        if at and (found := _first(text[at.end() :], choices)) is not None:
            return found
    return _first(text, choices)


def _first(text: str, choices: Sequence[str]) -> str | None:
    """The choice that stands first as a whole word; of several that start at one place, the longest."""
    found = []
    for choice in choices:
        if match := re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", text, re.IGNORECASE):
            found.append((match.start(), -len(match[0]), match[0] != choice, choice))
    return min(found)[3] if found else None


def _number(text: str) -> str | None:
    text = text.replace("\u2212", "-")
    _, mark, after = text.partition("####")
    if mark and (match := _NUMBER.search(after)):
        return _digits(match[0])
    at = text.lower().rfind("answer is")
    sentence = re.split(r"\n|\.\s", text[at:], maxsplit=1)[0] if at >= 0 else ""
    if match := _NUMBER.search(sentence.rpartition("=")[2]):  # "the answer is 3 + 4 = 7"
        return _digits(match[0])
    found = _NUMBER.findall(text)
    return _digits(found[-1]) if found else None


def _digits(number: str) -> str:
    return re.sub(r"[^\d.\-]", "", number)


def _letter(text: str) -> str | None:
    if named := _ANSWER_IS.findall(text):
        return "".join(named[-1]).upper()
    match = _OPTION.search(text) or _CAPITAL.search(text)
    return match[1] if match else None
