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
HIDDEN = ("hidden_size", "d_model", "n_embd")  # norms and projections of every model have this width
EMBEDDING = re.compile(r"(.*\.)?(word_embeddings|embed_tokens|wte|tok_embeddings|shared)\.weight")


def check_sizes(name: str, config: Mapping[str, Any], weights: Sequence[Path]) -> None:
    """Refuse sizes of a configuration that its weights cannot have.

    These are more layers than there are tensors, a width that no tensor comes near, a hidden width that no tensor has,
    and a vocabulary that is not that of the embedding. Memory and minutes would be spent on what has nothing to do with
    the weights.

    Args:
        weights: Files of a local model; only those of safetensors are looked at.
    Raises:
        InputError: Naming the size.
    """
    shapes = {key: shape for path in weights if path.suffix == ".safetensors" for key, shape in _shapes(path)}
    if not shapes:
        return
    longest = max((size for shape in shapes.values() for size in shape), default=1)
    for key, value in _numbers(config):
        most = SHARED + len(shapes) if LAYERS.fullmatch(key) else PACKED * longest
        if value > most and (LAYERS.fullmatch(key) or WIDTHS.fullmatch(key)):
            held = f"{len(shapes):,} tensors" if LAYERS.fullmatch(key) else f"no size above {longest:,}"
            raise _others(name, key, value, f"its weights hold {held}")
    if "quantization_config" not in config:  # else weights may be packed
        _check_widths(name, config, shapes)


def _check_widths(name: str, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> None:
    widths = {size for shape in shapes.values() for size in shape[-1:]}  # others are rows of embeddings, or groups
    for key in HIDDEN:
        if isinstance(value := config.get(key), int) and value not in widths:
            raise _others(name, key, value, "none of its tensors has that width")
    embeddings = [key for key in shapes if EMBEDDING.fullmatch(key)]
    value = config.get("vocab_size")
    if len(embeddings) == 1 and isinstance(value, int) and shapes[embeddings[0]][:1] not in ([value], []):
        rows = shapes[embeddings[0]][0]
        raise _others(name, "vocab_size", value, f"{embeddings[0]} has {rows:,} rows")


def _others(name: str, key: str, value: int, held: str) -> InputError:
    return InputError(
        f"Model '{name}': config.json says {key}={value:,}, and {held}; config.json and weights are of different "
        "models."
    )


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Whole numbers of a configuration, those of its parts too."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield key, value


def _shapes(path: Path) -> Iterator[tuple[str, list[int]]]:
    with safe_open(path, framework="np") as file:
        for name in file.keys():  # noqa: SIM118
            yield name, file.get_slice(name).get_shape()
