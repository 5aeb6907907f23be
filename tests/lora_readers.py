"""A LoRA as each tool reads it: the change of every weight by that tool's own rule, from the files alone.

PEFT: ``alpha_pattern`` and ``rank_pattern``, else ``lora_alpha / r``. llama.cpp (``convert_lora_to_gguf.py`` keeps one
``lora_alpha``; ``llama_adapter_lora_weight::get_scale`` divides it by the tensor's own rank). vLLM (``PEFTHelper``):
``lora_alpha / r`` for all; it refuses ``modules_to_save``, ``use_dora`` and biases, and ranks above its limit.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

BASE = "base_model.model."
Scale = Callable[[Mapping[str, Any], str, int], float]


class Refused(Exception):
    """A tool does not load the LoRA."""


def peft(config: Mapping[str, Any], name: str, rank: int) -> float:
    def of(patterns: Mapping[str, int] | None, default: int) -> int:
        fitting = [key for key in patterns or {} if re.match(rf"(.*\.)?({key})$", name)]
        return (patterns or {})[fitting[0]] if fitting else default

    assert of(config["rank_pattern"], config["r"]) == rank
    alpha = of(config["alpha_pattern"], config["lora_alpha"])
    return alpha / (math.sqrt(rank) if config["use_rslora"] else rank)


def llama_cpp(config: Mapping[str, Any], name: str, rank: int) -> float:
    return float(config["lora_alpha"] / rank)


def vllm(config: Mapping[str, Any], name: str, rank: int) -> float:
    if config["modules_to_save"] or config["use_dora"] or config["bias"] != "none":
        raise Refused("modules_to_save, DoRA or biases")
    if rank > config["r"]:
        raise Refused(f"rank {rank} above r={config['r']}")
    return float(config["lora_alpha"] / (math.sqrt(config["r"]) if config["use_rslora"] else config["r"]))


READERS: dict[str, Scale] = {"PEFT": peft, "llama.cpp": llama_cpp, "vLLM": vllm}


def served(model: nn.Module, folder: Path, reader: str) -> Any:
    """A copy of a base model with the weights that a tool computes with.

    Raises:
        Refused: As that tool would.
    """
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors, copied = load_file(folder / "adapter_model.safetensors"), copy.deepcopy(model)
    for key in [key for key in tensors if key.endswith(".lora_A.weight")]:
        a, b = tensors.pop(key), tensors.pop(key.replace(".lora_A.", ".lora_B."))
        name = key.removeprefix(BASE).removesuffix(".lora_A.weight")
        _add(copied.get_submodule(name), READERS[reader](config, name, len(a)) * (b @ a))
    if tensors:
        raise Refused(f"tensors that are no pair: {', '.join(tensors)}")
    return copied


@torch.no_grad()
def _add(layer: Any, change: Tensor) -> None:
    frozen = layer.weight.detach()
    layer.weight = nn.Parameter(frozen + (change.T if isinstance(layer, Conv1D) else change))
