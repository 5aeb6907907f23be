"""Sizes that a model's configuration gives it, compared with its weights before anything of these sizes is made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from morenas.base.errors import InputError

LAYERS = re.compile(r"(num|n|encoder|decoder)(_hidden)?_?layers?")
WIDTHS = re.compile(
    r"(hidden|intermediate|embedding|ffn|vocab|type_vocab)_size|d_model|d_ff|ffn_dim|n_embd|n_inner|dim"
)
SHARED = 1000  # layers that may have the same weights, as ALBERT's
PACKED = 8  # values of a weight that one number of a quantized file may hold


def check_sizes(name: str, config: Mapping[str, Any], weights: Sequence[Path]) -> None:
    """Refuse a configuration of more layers than there are tensors, or of a width that no tensor comes near.

    Memory and minutes would be spent on what has nothing to do with the weights.

    Args:
        weights: Files of a local model; only those of safetensors are looked at.
    Raises:
        InputError: Naming the size.
    """
    shapes = [shape for path in weights if path.suffix == ".safetensors" for shape in _shapes(path)]
    if not shapes:
        return
    longest = max((size for shape in shapes for size in shape), default=1)
    for key, value in _numbers(config):
        most = SHARED + len(shapes) if LAYERS.fullmatch(key) else PACKED * longest
        if value > most and (LAYERS.fullmatch(key) or WIDTHS.fullmatch(key)):
            held = f"{len(shapes):,} tensors" if LAYERS.fullmatch(key) else f"no size above {longest:,}"
            raise InputError(
                f"Model '{name}': config.json says {key}={value:,}, and its weights hold {held}; config.json and "
                "weights are of different models."
            )


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Whole numbers of a configuration, those of its parts too."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield key, value


def _shapes(path: Path) -> list[list[int]]:
    with safe_open(path, framework="np") as file:
        return [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
