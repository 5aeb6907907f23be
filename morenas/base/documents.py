"""The published JSON schemas, and the check of every document against them when it is written and when it is read."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from morenas.base.errors import InputError


@cache
def validator(schema: str) -> Draft202012Validator:
    """The validator of a published schema, "architecture" or "results"."""
    text = (files("morenas") / "assets" / "schemas" / f"{schema}.schema.json").read_text(encoding="utf-8")
    return Draft202012Validator(json.loads(text))


def validate(document: Any, schema: str, source: str) -> None:
    """Check a document against a published schema.

    Args:
        document: Parsed JSON.
        schema: "architecture" or "results".
        source: Where the document came from, for the message.
    Raises:
        InputError: If the document is of another format or version, or breaks the schema; names the place in it.
    """
    check = validator(schema)
    assert isinstance(check.schema, dict)
    expected = check.schema["properties"]["format"]["const"]
    found = document.get("format") if isinstance(document, dict) else None
    if found != expected:
        raise InputError(
            f"{source}: its format is {found!r:.60}, this version of morenas reads {expected!r}; "
            "use the version that wrote it, or write it anew."
        )
    errors = list(check.iter_errors(document))
    if errors:
        worst: ValidationError = best_match(errors)
        place = worst.json_path.removeprefix("$.")
        raise InputError(f"{source}: not a valid {schema}: at '{place[:200]}': {shortest(worst.message)}")


def shortest(message: str, most: int = 300) -> str:
    """A message without the middle of a document that it repeats."""
    return message if len(message) <= most else f"{message[: most // 2]} … {message[-most // 2 :]}"
