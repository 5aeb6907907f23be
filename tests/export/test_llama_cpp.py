"""The exported LoRA in llama.cpp itself, not only by its rule."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from llama_cpp import log_probabilities
from tiny_adapters import mixed
from tiny_exports import difference
from tiny_models import Tiny

import morenas

TINY = Tiny("llama")
PROMPT = (5, 9, 11, 7, 30, 22)


@pytest.mark.slow
def test_llama_cpp_computes_what_the_adapter_computes(tmp_path: Path) -> None:
    for needed in ("xllamacpp", "gguf"):
        pytest.importorskip(needed, reason=f"{needed} is not installed: pip install 'morenas[llamacpp]'")
    model = mixed(TINY)
    with torch.no_grad():
        expected, base = (
            one(input_ids=torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1) for one in (model, TINY.model())
        )
    morenas.to_lora(model, tmp_path / "servers")
    morenas.to_lora(model, tmp_path / "peft", for_="peft")
    off = {}
    for name in ("base", "servers", "peft"):
        (tmp_path / f"{name}-gguf").mkdir()
        lora = None if name == "base" else tmp_path / name
        found = log_probabilities(TINY.model(), lora, PROMPT, tmp_path / f"{name}-gguf")
        off[name] = difference(found, base if name == "base" else expected)
    assert off["base"] <= 0.03 and off["servers"] <= 0.03 < 1 < off["peft"], off
