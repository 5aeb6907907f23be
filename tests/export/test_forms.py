"""The forms of an export through the functions: merged models, language models, weights tied to the embedding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel, get_peft_model
from tiny_adapters import adapted, linears, logits, more_config
from tiny_exports import difference, outputs
from tiny_models import LANGUAGE_MODELS, Tiny, save_tiny
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import morenas
from morenas.models import load_pretrained


@pytest.mark.parametrize("num_labels", [1, 2, 5])
def test_a_saved_adapter_brings_the_size_of_its_head(num_labels: int, tmp_path: Path) -> None:
    base = save_tiny("roberta", tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=num_labels)
    native = get_peft_model(model, more_config(model, modules_to_save=["classifier"]))
    native.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    morenas.to_merged(tmp_path / "adapter", tmp_path / "merged")
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert merged.config.num_labels == num_labels
    assert difference(logits(merged), logits(native)) <= 1e-5


def test_merging_leaves_the_model_that_was_given_as_it_was(tmp_path: Path) -> None:
    model = adapted("bert", modules_to_save=["classifier"])
    before, expected = {name: value.clone() for name, value in model.state_dict().items()}, logits(model)
    morenas.to_merged(model, tmp_path / "merged")
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert difference(logits(AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")), expected) <= 1e-5


@pytest.mark.parametrize("tiny", LANGUAGE_MODELS, ids=str)
def test_a_language_model_merges_and_loads_by_itself(tiny: Tiny, tmp_path: Path) -> None:
    base = tiny.save(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    native = get_peft_model(model, more_config(model))
    expected = outputs(native, tiny)
    native.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    morenas.to_merged(tmp_path / "adapter", tmp_path / "merged")
    morenas.to_lora(tmp_path / "adapter", tmp_path / "lora")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert difference(outputs(merged, tiny), expected) <= 1e-5
    assert "AutoModelForCausalLM" in (tmp_path / "lora" / "README.md").read_text()
    lora = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "lora")
    assert difference(outputs(lora, tiny), expected) <= 1e-5


@pytest.mark.parametrize("family", ["gpt2", "opt", "gemma"])
def test_an_output_layer_tied_to_the_embedding_is_untied_when_it_is_merged(family: str, tmp_path: Path) -> None:
    tiny = Tiny(family, options=(("tie_word_embeddings", True),))
    base = tiny.save(tmp_path / "base")
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    names = [*linears(model), "lm_head"]
    native = get_peft_model(model, more_config(model, target_modules=names))
    expected = outputs(native, tiny)
    morenas.to_merged(native, tmp_path / "merged")
    merged: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.config.tie_word_embeddings is False
    assert difference(outputs(merged, tiny), expected) <= 1e-5
    assert torch.equal(merged.get_input_embeddings().weight, model.get_input_embeddings().weight)
    morenas.to_lora(native, tmp_path / "lora")
    lora = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tmp_path / "lora")
    assert difference(outputs(lora, tiny), expected) <= 1e-5


@pytest.mark.realdata
def test_a_real_encoder_computes_the_same_in_every_form(real_models: Path, tmp_path: Path) -> None:
    base = real_models / "all-MiniLM-L6-v2-fp16"
    if not base.is_dir():
        pytest.skip(f"no real model {base.name}")
    model = load_pretrained(str(base), 2).model
    shapes = {name: {"nblocks": 2 ** (i % 5), "blk_r": 2 ** (i % 4)} for i, name in enumerate(linears(model))}
    config = more_config(model, architecture=shapes, target_modules=None, modules_to_save=["classifier"])
    native = get_peft_model(model, config)
    tokens = {"input_ids": torch.arange(1000, 1032).view(2, 16)}
    with torch.no_grad():
        expected = native.eval()(**tokens).logits
        morenas.to_lora(native, tmp_path / "lora")
        morenas.to_merged(native, tmp_path / "merged")
        lora = PeftModel.from_pretrained(load_pretrained(str(base), 2).model, tmp_path / "lora").eval()
        merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
        unchanged = load_pretrained(str(base), 2).model(**tokens).logits
        assert difference(unchanged, expected) > 1e-2
        assert difference(lora(**tokens).logits, expected) <= 1e-5
        assert difference(merged(**tokens).logits, expected) <= 1e-5


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["stories260K", "babyllama-tok105"])
def test_a_real_language_model_computes_the_same_in_every_form(name: str, real_models: Path, tmp_path: Path) -> None:
    base = real_models / name
    if not base.is_dir():
        pytest.skip(f"no real model {name}")
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    shapes = {name: {"nblocks": 2 ** (i % 5), "blk_r": 2 ** (i % 4)} for i, name in enumerate(linears(model))}
    native = get_peft_model(model, more_config(model, architecture=shapes, target_modules=None))
    text = "Once upon a time there was a little girl who liked to play with her red ball."
    tokens = AutoTokenizer.from_pretrained(base)(text, return_tensors="pt")
    with torch.no_grad():
        expected = native.eval()(**tokens).logits
        morenas.to_lora(native, tmp_path / "lora")
        morenas.to_merged(native, tmp_path / "merged")
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        unchanged = plain(**tokens).logits
        lora = PeftModel.from_pretrained(plain, tmp_path / "lora").eval()
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
        allowed = 1e-5 * float(expected.abs().max())  # logits reach 20 and more, which float32 rounds by as much
        assert difference(unchanged, expected) > 1e-2
        assert difference(lora(**tokens).logits, expected) <= allowed
        assert difference(merged(**tokens).logits, expected) <= allowed
