"""morenas: gradient search of Monarch adapter architectures for fine-tuning pretrained models.

Importing it registers the adapter with PEFT; nothing heavy is imported until it is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from morenas._peft_hook import register_with_peft
from morenas.base.version import __version__

if TYPE_CHECKING:
    from morenas.adapters import MoReConfig, set_factors
    from morenas.base.errors import InputError, RunError
    from morenas.base.registry import register
    from morenas.export.functions import from_lora, from_published, to_lora, to_merged
    from morenas.finetune.language import score_records
    from morenas.models.heads import find_head
    from morenas.models.load import load_pretrained
    from morenas.models.targets import target_linears
    from morenas.search.data import SearchData
    from morenas.search.engine import SearchOutcome, search_architecture
    from morenas.search.settings import SearchSettings
    from morenas.space import Architecture, Budget, SearchSpace, build_space
    from morenas.tasks.batches import numbered_batches

__all__ = [
    "Architecture",
    "Budget",
    "InputError",
    "MoReConfig",
    "RunError",
    "SearchData",
    "SearchOutcome",
    "SearchSettings",
    "SearchSpace",
    "__version__",
    "build_space",
    "find_head",
    "from_lora",
    "from_published",
    "load_pretrained",
    "numbered_batches",
    "register",
    "score_records",
    "search_architecture",
    "set_factors",
    "target_linears",
    "to_lora",
    "to_merged",
]

_HOMES = {
    "morenas.adapters": ("MoReConfig", "set_factors"),
    "morenas.search.data": ("SearchData",),
    "morenas.search.engine": ("SearchOutcome", "search_architecture"),
    "morenas.tasks.batches": ("numbered_batches",),
    "morenas.base.errors": ("InputError", "RunError"),
    "morenas.base.registry": ("register",),
    "morenas.export.functions": ("from_lora", "from_published", "to_lora", "to_merged"),
    "morenas.models.heads": ("find_head",),
    "morenas.models.load": ("load_pretrained",),
    "morenas.models.targets": ("target_linears",),
    "morenas.finetune.language": ("score_records",),
    "morenas.search.settings": ("SearchSettings",),
    "morenas.space": ("Architecture", "Budget", "SearchSpace", "build_space"),
}
"""Module to the names that are taken from it when they are asked for."""

register_with_peft()


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'morenas' has no attribute '{name}'")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
