"""A vocabulary that was resized: its embeddings belong to an adapter as much as its factors do.

PEFT saves the embeddings of a model whose vocabulary differs from its base model's, and refuses to load them onto a
model that was not resized alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer

from morenas.adapters.lora import BASE
from morenas.base.errors import InputError
from morenas.models import Pretrained
from morenas.models.quiet import quiet_transformers

CARRIED = "morenas_carried_embeddings"
"""Attribute of a model whose adapter brought embeddings other than the base model's, of whatever size."""


def resize(model: Any, tensors: Mapping[str, Tensor], who: str) -> None:
    """Give a base model as many embeddings as its adapter was saved with; the adapter's are to be loaded.

    Raises:
        InputError: If the adapter does not hold the input embeddings of its own vocabulary.
    """
    if not hasattr(model, "get_input_embeddings"):
        return
    inputs, outputs = (_saved(model, side, tensors) for side in ("input", "output"))
    saved = outputs if inputs is None else inputs
    rows = len(model.get_input_embeddings().weight)
    if saved is None or len(saved) == rows:
        return
    if inputs is None and not model.config.get_text_config().tie_word_embeddings:
        raise InputError(
            f"{who}: was trained with a vocabulary of {len(saved)}, the base model's being {rows}, and does not hold "
            "its input embeddings: PEFT leaves them out where the output layer has an adapter. Export from the model "
            "itself (morenas.to_lora(model, ...)), or train with modules_to_save=['embed_tokens']."
        )
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        model.resize_token_embeddings(len(saved), mean_resizing=False)


def without_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What an adapter was saved with, each tensor once: PEFT writes embeddings that were trained whole three times."""
    inner = re.compile(r"\.(modules_to_save|original_module)\.(?=\w+$)")
    copies = {name for name in tensors if inner.search(name) and inner.sub(".", name) in tensors}
    return {name: value for name, value in tensors.items() if name not in copies}


def saved_embeddings(model: PeftModel, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those embeddings of a model that a saved adapter brings, under PEFT's names."""
    return {name: value for name, value in _embeddings(model).items() if name in tensors}


def note_carried(model: PeftModel, tensors: Mapping[str, Tensor]) -> None:
    """Remember, before they are loaded, that an adapter brings other embeddings than the base model has."""
    there = saved_embeddings(model, tensors).items()
    setattr(model, CARRIED, any(not torch.equal(tensors[name].to(value), value) for name, value in there))


def carried(model: PeftModel) -> dict[str, Tensor]:
    """The embeddings that have to go along with an adapter, under PEFT's names; empty where they are the base's own."""
    return _embeddings(model) if getattr(model, CARRIED, False) or resized_to(model) else {}


def resized_to(model: PeftModel) -> int | None:
    """The number of embeddings, where it is not that of the base model's config; None where it is or is not known."""
    task: Any = model.base_model.model
    known = _known_vocabulary(model.peft_config["default"].base_model_name_or_path)
    if known is None or not hasattr(task, "get_input_embeddings"):
        return None
    rows = len(task.get_input_embeddings().weight)
    return rows if rows != known else None


def tokenizer_for(adapter: Path, pretrained: Pretrained) -> Any:
    """The tokenizer that was saved beside an adapter, which may have more tokens; else the base model's."""
    if not (adapter / "tokenizer_config.json").exists():
        return pretrained.tokenizer
    with quiet_transformers():
        return AutoTokenizer.from_pretrained(str(adapter), local_files_only=True, trust_remote_code=False)


def _embeddings(model: PeftModel) -> dict[str, Tensor]:
    """Input and output embeddings of a model of transformers, but for those that ``modules_to_save`` trains whole."""
    task: Any = model.base_model.model
    layers = [getattr(task, f"get_{side}_embeddings", lambda: None)() for side in ("input", "output")]
    state: dict[str, Tensor] = {}
    for layer in layers:
        base: Any = getattr(layer, "base_layer", layer)  # an adapter may stand on it
        name = _name_of(model, base) if base is not None else None
        if name is not None and not hasattr(layer, "original_module"):
            state |= {f"{name}.{key}": value for key, value in base.state_dict().items()}
    return state


def _saved(model: Any, side: str, tensors: Mapping[str, Tensor]) -> Tensor | None:
    """The embeddings of one side in what an adapter was saved with."""
    layer = getattr(model, f"get_{side}_embeddings")()
    name = _name_of(model, layer) if layer is not None else None
    names = (f"{BASE}{name}.weight", f"{BASE}{name}.base_layer.weight")
    return next((tensors[one] for one in names if one in tensors), None)


def _name_of(model: nn.Module, wanted: nn.Module) -> str | None:
    return next((name for name, module in model.named_modules() if module is wanted), None)


def _known_vocabulary(base: str | None) -> int | None:
    """The vocabulary size in a base model's config, in its folder or the local cache."""
    if not base:
        return None
    try:
        config = AutoConfig.from_pretrained(
            str(Path(base).expanduser()) if Path(base).expanduser().is_dir() else base,
            local_files_only=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError):
        return None
    size = getattr(config.get_text_config(), "vocab_size", None)
    return size if isinstance(size, int) else None
