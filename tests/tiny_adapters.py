"""Tiny models with Monarch adapters that do something."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from peft import get_peft_model
from tiny_models import LANGUAGE_MODELS, Tiny, tiny_batch
from torch import Tensor, nn

from morenas.adapters import MoReConfig, more_layers
from morenas.models import target_linears
from morenas.models.heads import find_head

MODELS = (
    *(replace(tiny, layers=1) for tiny in LANGUAGE_MODELS),
    *(
        Tiny(family, causal=False, layers=1)
        for family in ("bert", "roberta", "distilbert", "deberta-v2", "electra", "llama")
    ),
)
"""Whatever PEFT promises is to hold of each of them."""

KINDS = tuple(
    tiny
    for tiny in MODELS
    if str(tiny)
    in ("gpt2-lm", "gpt_neox-lm", "llama-lm-tie_word_embeddings", "opt-lm-word_embed_proj_dim", "bert-classifier")
)
"""One of each kind: Conv1D, fused projections, tied embeddings, projections around the decoder, an encoder's head."""


def adapted(tiny: str | Tiny = "bert", seed: int = 0, **config: Any) -> Any:
    """A tiny model with adapters on all linear layers outside the head; ``init_weights=False`` by default.

    A family's name stands for its classifier. A PEFT model; typed as Any, for tests reach into its layers.
    """
    model = (Tiny(tiny, causal=False) if isinstance(tiny, str) else tiny).model()
    return get_peft_model(model, more_config(model, seed, **config))


def mixed(tiny: str | Tiny = "bert", **config: Any) -> Any:
    """A model whose modules have adapters of different shapes, the last two none."""
    model = (Tiny(tiny, causal=False) if isinstance(tiny, str) else tiny).model()
    names = linears(model)[:-2]
    shapes = {name: {"nblocks": 1 + i % 4, "blk_r": 1 + i % 3} for i, name in enumerate(names)}
    adapter = adapted(tiny, architecture=shapes, target_modules=None, **config).eval()
    with torch.no_grad():
        for layer in more_layers(adapter).values():
            layer.morenas_second["default"].mul_(4)  # so that the logits move by much more than the rounding
    return adapter


def more_config(model: nn.Module, seed: int = 0, **config: Any) -> MoReConfig:
    """A config for adapters on all linear layers outside the head; they will start at random, by ``seed``."""
    torch.manual_seed(seed)
    return MoReConfig(**{"target_modules": linears(model), "nblocks": 2, "blk_r": 2, "init_weights": False, **config})


def linears(model: nn.Module) -> list[str]:
    """Names of the linear layers outside the head."""
    return list(target_linears(model, "all-linear", find_head(model)))


@torch.no_grad()
def logits(model: nn.Module, seed: int = 0) -> Tensor:
    """Logits of a fixed batch."""
    batch = tiny_batch(seed=seed)
    batch.pop("labels")
    return model.eval()(**batch).logits.clone()


def base_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all weights that are no adapter's."""
    return {name: value.clone() for name, value in model.state_dict().items() if "morenas_" not in name}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def learning(model: nn.Module) -> set[str]:
    """Names of the parameters that are trained."""
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}
