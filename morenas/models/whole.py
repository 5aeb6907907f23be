"""Whether the weights of a checkpoint are those that its configuration asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from morenas.base.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_base(name: str, model: PreTrainedModel, new: set[str], mismatched: set[str]) -> None:
    """Refuse a pretrained network of which a part would start from random numbers, its last part aside.

    Checkpoints may lack a pooler, which comes after all layers and is trained with the head.

    Args:
        name: What the user calls the model.
        new: Parameters that the checkpoint lacks, or has in other shapes; both are new in the model.
        mismatched: Those of other shapes.
    Raises:
        InputError: Naming the first such parameter.
    """
    prefix = model.base_model_prefix + "."
    base = [key for key, _ in model.named_parameters() if key.startswith(prefix)]
    if other := [key for key in base if key in mismatched]:
        raise InputError(
            f"Model '{name}': {len(other)} of its weights have other shapes than config.json gives them (the "
            f"first is {other[0]}); config.json and weights are of different models."
        )
    missing = [key for key in base if key in new]
    held = [index for index, key in enumerate(base) if key not in new]
    last = held[-1] if held else len(base)
    inside = [key for key in base[:last] if key in new] + [key for key in base[last:] if key in new and _numbered(key)]
    if inside or len(missing) > len(base) / 2:
        raise InputError(
            f"Model '{name}': its weights lack {len(missing)} of the {len(base)} tensors of {type(model).__name__} "
            f"(the first is {missing[0]}); config.json and weights are of different models, or the weights are not "
            "whole."
        )


def layers_left_out(model: PreTrainedModel, unexpected: Iterable[str]) -> list[str]:
    """Tensors of a checkpoint that belong to layers which the model does not have, in alphabetical order.

    Args:
        unexpected: Tensors of the checkpoint that are no parameters of the model.
    """
    kinds = {_kind(key) for key, _ in model.named_parameters()}
    kinds |= {kind.removeprefix(model.base_model_prefix + ".") for kind in kinds}
    return sorted(key for key in unexpected if _numbered(key) and _kind(key) in kinds)


def _kind(key: str) -> str:
    return re.sub(r"\d+", "#", key)


def _numbered(key: str) -> bool:
    return any(part.isdecimal() for part in key.split("."))
