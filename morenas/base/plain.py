"""Objects as JSON takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def settings_of(made: Any) -> dict[str, Any]:
    """The settings that an object was made with."""
    if not is_dataclass(made) or isinstance(made, type):
        return {}
    return {field.name: getattr(made, field.name) for field in fields(made) if field.init}


def plain(value: Any) -> Any:
    """A setting as JSON takes it: objects and functions by their place, what is nothing of those as text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    if is_dataclass(value):
        place = f"{type(value).__module__}:{type(value).__qualname__}"
        return {"name": place, **{key: plain(item) for key, item in settings_of(value).items()}}
    return str(value)
