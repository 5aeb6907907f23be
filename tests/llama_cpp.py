"""A tiny Llama and its LoRA run by llama.cpp itself, through xllamacpp.

GGUF files are written as ``convert_hf_to_gguf.py`` and ``convert_lora_to_gguf.py`` write them: rows of the query and
key projections are reordered for ggml's rotary embedding, and of a LoRA's configuration ``lora_alpha`` alone is kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def log_probabilities(model: Any, lora: Path | None, prompt: Sequence[int], folder: Path) -> Tensor:
    """What llama.cpp thinks of every token after a prompt of tokens."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(write_model(model, folder / "model.gguf"))
    params.n_ctx, params.warmup = 64, False
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    if lora is not None:
        info = xllamacpp.CommonAdapterLoraInfo()
        info.path, info.scale = str(write_lora(model, lora, folder / "lora.gguf")), 1.0
        params.lora_adapters = [info]
    server = xllamacpp.Server(params)
    asked = {"prompt": list(prompt), "n_predict": 1, "n_probs": model.config.vocab_size, "temperature": 0.0}
    answer: Any = server.handle_completions(asked)
    logarithms = torch.full((model.config.vocab_size,), torch.nan)
    for one in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
        logarithms[one["id"]] = one["logprob"]
    return logarithms


def write_model(model: Any, path: Path) -> Path:
    """A Llama of transformers, its vocabulary made up."""
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    tokens = ["<unk>", "<s>", "</s>", "<0x0A>", *(f"word{index}" for index in range(4, config.vocab_size))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3, 6] + [1] * (len(tokens) - 4))  # unknown, control, control, byte, normal
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, value in model.state_dict().items():
        writer.add_tensor(_their_name(name), _rows(model, name, value))
    return _written(writer, path)


def write_lora(model: Any, folder: Path, path: Path) -> Path:
    """A LoRA of PEFT's format: its pairs, and its one ``lora_alpha``."""
    import gguf

    config = json.loads((folder / "adapter_config.json").read_text())
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(config["lora_alpha"]))
    for key, value in load_file(folder / "adapter_model.safetensors").items():
        name, _, side = key.removeprefix("base_model.model.").partition(".lora_")
        rows = _rows(model, f"{name}.weight", value) if side.startswith("B") else value.numpy()
        writer.add_tensor(f"{_their_name(f'{name}.weight')}.lora_{side[0].lower()}", rows)
    return _written(writer, path)


def _their_name(name: str) -> str:
    module = name.removesuffix(".weight")
    if module in WHOLE:
        return f"{WHOLE[module]}.weight"
    _, _, block, part = module.split(".", 3)
    return f"blk.{block}.{PARTS[part]}.weight"


def _rows(model: Any, name: str, value: Tensor) -> np.ndarray:
    """Rows in the order of ggml's rotary embedding, which pairs neighbours where transformers pairs halves."""
    rows = value.detach().float()
    heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
    if (part := name.split(".")[-2]) in heads:
        rows = rows.view(heads[part], 2, -1, rows.shape[1]).transpose(1, 2).reshape(rows.shape)
    return np.ascontiguousarray(rows.numpy())


def _written(writer: Any, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
