"""Texts that spell a special token of the model's tokenizer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from morenas.base.errors import InputError
from morenas.tasks.classes import shortened

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class SpelledToken(InputError):
    """A text spells a special token.

    Attributes:
        text: The first such text.
    """

    def __init__(self, text: str, token: str, count: int, place: str = "") -> None:
        self.text, self.token, self.count = text, token, count
        near = text[max(text.index(token) - 20, 0) : text.index(token) + len(token) + 20]
        others = f" (so do {count - 1:,} more)" if count > 1 else ""
        super().__init__(
            f"{place or 'The texts'}: {shortened(near)} spells the special token {token!r}{others}, which the model "
            "would take for its own mark of where a text begins or ends; write it otherwise, with blanks in it say, or "
            "leave such rows out."
        )

    def at(self, place: str) -> SpelledToken:
        """The same error with the row's place."""
        return SpelledToken(self.text, self.token, self.count, place)


def marks_of(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Tokens of a tokenizer that mark where texts begin and end; those for what is unknown or masked are none."""
    ends = {getattr(tokenizer, f"{name}_token", None) for name in ("bos", "eos", "sep", "cls", "pad")}
    harmless = {tokenizer.unk_token, getattr(tokenizer, "mask_token", None)} - ends  # GPT-2 has one token for all
    return [mark for mark in tokenizer.all_special_tokens if mark not in harmless]


def check_spelling(marks: Sequence[str], *columns: Sequence[str]) -> None:
    """Refuse a text that spells a token which marks where texts begin and end.

    The model would take it for the mark: BART reads an example at its last one, and training teaches a language model
    to stop there.

    Args:
        marks: Those tokens.
        columns: The texts of every example, one list a column.
    Raises:
        SpelledToken: With the first such text and how many there are.
    """
    if not marks:
        return
    spelled = re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))))
    found = [(text, match[0]) for texts in columns for text in texts if (match := spelled.search(text)) is not None]
    if found:
        raise SpelledToken(*found[0], len(found))
