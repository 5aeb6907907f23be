"""morenas: gradient search of Monarch adapter architectures for fine-tuning pretrained models.

Importing it registers the adapter with PEFT; nothing heavy is imported until it is needed.
"""

from __future__ import annotations

from typing import Any

from morenas._peft_hook import register_with_peft

__version__ = "0.1.0"
__all__ = ["__version__", "from_lora", "from_published", "search_architecture", "to_lora", "to_merged"]

_EXPORTING = ("from_lora", "from_published", "to_lora", "to_merged")

register_with_peft()


def __getattr__(name: str) -> Any:
    if name == "search_architecture":
        from morenas.api import search_architecture

        return search_architecture
    if name in _EXPORTING:
        from morenas.exporting import api

        return getattr(api, name)
    raise AttributeError(f"module 'morenas' has no attribute '{name}'")
