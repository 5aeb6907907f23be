"""Tiny mixtures of experts with random weights; of the first two PEFT moves a LoRA's targets to other weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    PhimoeConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2MoeConfig,
)

_SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "initializer_range": 0.2,
}
_DEEPSEEK: dict[str, Any] = {
    **_SIZES,
    "moe_intermediate_size": 8,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 4,
}
_QWEN: dict[str, Any] = {**_SIZES, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8, "num_experts": 4}

_CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "deepseek_v3": lambda: DeepseekV3Config(**_DEEPSEEK, first_k_dense_replace=1, n_shared_experts=1),
    "deepseek_v3, dense first layer alone": lambda: DeepseekV3Config(
        **{**_DEEPSEEK, "num_hidden_layers": 1}, first_k_dense_replace=1, n_shared_experts=1
    ),
    "qwen2_moe": lambda: Qwen2MoeConfig(**_QWEN),
    "phimoe": lambda: PhimoeConfig(**_SIZES, num_local_experts=4),
}
MIXTURES = tuple(_CONFIGS)
MOVED = MIXTURES[:2]
"""Where PEFT moves the targets of a LoRA that adapts every linear layer."""


def tiny_mixture(name: str) -> PreTrainedModel:
    """A language model in evaluation mode, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(_CONFIGS[name]()).eval()
