"""Special tokens of a model, read from the files of its folder: without transformers, so within a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from morenas.base.files import read_object
from morenas.models.source import ModelSource

FILES = ("special_tokens_map.json", "tokenizer_config.json")
ENDS = ("bos", "eos", "sep", "cls", "pad")
"""What marks where texts begin and end."""


def marks_in(source: ModelSource) -> list[str]:
    """Tokens that mark where texts begin and end, as far as the files of a local model name them.

    A tokenizer may have more, which its class adds; those are known once it is loaded.
    """
    folder, named = Path(source.location), dict[str, Any]()
    for file in FILES:
        if source.local and (folder / file).exists():
            named |= read_object(folder / file, "tokenizer's file", foreign=True)
    found = [_text(named.get(f"{name}_token")) for name in ENDS]
    return [token for token in dict.fromkeys(found) if token]


def _text(token: Any) -> str | None:
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None
