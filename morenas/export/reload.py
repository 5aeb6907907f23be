"""Load an exported LoRA as others will, and compare: PEFT may put it elsewhere than where it was made."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from morenas.adapters import more_layers
from morenas.adapters.attached import bare_twin, misplaced
from morenas.base.errors import InputError
from morenas.models.quiet import quiet_transformers

TOKENS = 12
ROUNDING = 16
"""Logits may differ by so many roundings of the largest: adapters are computed in another order."""


def check_reload(model: PeftModel, folder: Path, ranks: Mapping[str, int], exact: bool) -> None:
    """Load the LoRA of a folder onto the frozen model, and compare modules, parameters and logits.

    Args:
        model: The model with the Monarch adapter that was written.
        ranks: Module to the rank that was written.
        exact: Whether logits are to be the same.
    Raises:
        InputError: If anything differs.
    """
    layers = more_layers(model)
    meant = {name: layer.frozen_weight for name, layer in layers.items()}
    params = {name: ranks[name] * (layer.in_features + layer.out_features) for name, layer in layers.items()}
    task: Any = model.base_model.model
    with bare_twin(task) as twin:
        lora = _load(twin, folder)
        if words := misplaced(twin, meant, params):
            raise _differs(model, words)
        probe = _probe(twin)
        if exact and probe is not None:
            _compare(model, lora, probe)


def _load(twin: nn.Module, folder: Path) -> PeftModel:
    with warnings.catch_warnings(), quiet_transformers():
        warnings.simplefilter("ignore")
        try:
            return PeftModel.from_pretrained(twin, str(folder), torch_device="cpu")
        except (ValueError, RuntimeError, KeyError, TypeError, NotImplementedError) as error:
            raise _differs(twin, str(error)) from error


def _compare(model: PeftModel, lora: PeftModel, probe: Mapping[str, Tensor]) -> None:
    try:
        expected = _logits(model, probe)
    except Exception:  # a model that wants more than token ids cannot be tried out here
        return
    largest = float(expected.abs().max())
    allowed = max(1e-3, ROUNDING * torch.finfo(_dtype(model)).eps) * largest
    if not (difference := float((_logits(lora, probe) - expected).abs().max())) <= allowed:
        raise _differs(model, f"its logits are off by {difference:.3g}, the largest being {largest:.3g}")


def _differs(model: nn.Module, words: str) -> InputError:
    name = type(model.get_base_model() if isinstance(model, PeftModel) else model).__name__
    return InputError(
        f"LoRA export: PEFT does not read this LoRA back onto {name} as what it was written from: {words}. On mixtures "
        "of experts it moves gate_proj, up_proj and down_proj to other weights (huggingface/peft#3711). Export with "
        "to=merged (morenas.to_merged), a plain model."
    )


def _probe(model: Any) -> dict[str, Tensor] | None:
    """Token ids that any model of text takes; None for other models."""
    config: Any = getattr(model, "config", None)
    if getattr(model, "main_input_name", None) != "input_ids" or not hasattr(config, "get_text_config"):
        return None
    text = config.get_text_config()
    vocabulary, end = getattr(text, "vocab_size", None), getattr(text, "eos_token_id", None)
    if not vocabulary:
        return None
    ids = torch.randint(vocabulary, (1, TOKENS), generator=torch.Generator().manual_seed(0))
    if isinstance(end, int):  # classifiers of encoder-decoders read the end token, and want exactly one
        ids[ids == end] = (end + 1) % vocabulary
        ids[0, -1] = end
    ids = ids.to(next(model.parameters()).device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@torch.no_grad()
def _logits(model: nn.Module, probe: Mapping[str, Tensor]) -> Tensor:
    with _evaluating(model):
        logits: Tensor = model(**probe).logits
    return logits.float()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def _dtype(model: nn.Module) -> torch.dtype:
    dtype = getattr(model, "dtype", torch.float32)
    return dtype if isinstance(dtype, torch.dtype) and dtype.is_floating_point else torch.float16
