"""Export and import as functions: MoRe adapters to LoRAs and back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tiny_adapters import linears, logits
from tiny_exports import ADAPTER, difference, native
from tiny_models import save_tiny, shallow, tiny_classifier

import morenas
from morenas.adapters import more_layers
from morenas.base.errors import InputError
from morenas.models import load_pretrained
from morenas.space import Architecture, ModuleShape


def test_an_adapter_of_another_base_model_is_refused(found: Path, tiny_model: Path, tmp_path: Path) -> None:
    other = save_tiny("bert", tmp_path / "other", seed=1)
    with pytest.raises(InputError, match=f"belongs to the base model '{tiny_model}', and base='{other}'"):
        morenas.to_lora(found / "adapter", tmp_path / "out", base=str(other))
    moved = shutil.copytree(tiny_model, tmp_path / "moved" / tiny_model.name)
    morenas.to_lora(found / "adapter", tmp_path / "out", base=str(moved))
    roberta = save_tiny("roberta", tmp_path / "roberta" / tiny_model.name)
    with pytest.raises(InputError, match=r"does not fit Roberta|not those of this model"):
        morenas.to_lora(found / "adapter", tmp_path / "third", base=str(roberta))


def architecture_of(model: Any, **shape: int) -> Architecture:
    shapes = {
        name: ModuleShape(**shape, in_features=module.in_features, out_features=module.out_features)
        for name, module in model.named_modules()
        if name in linears(model)
    }
    return Architecture("tiny", "cyclic", shapes, 0.1)


def test_more_to_lora_and_back_is_the_same_function(found: Path, tiny_model: Path, tmp_path: Path) -> None:
    morenas.to_lora(found / "adapter", tmp_path / "lora")
    errors = morenas.from_lora(tmp_path / "lora", found / "architecture.json", tmp_path / "more")
    assert max(errors.values()) < 1e-6
    again = PeftModel.from_pretrained(load_pretrained(str(tiny_model), 2).model, tmp_path / "more")
    assert difference(logits(again), logits(native(found, tiny_model))) <= 1e-5


def test_a_lora_is_projected_onto_an_architecture_with_its_error(
    lora_run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    found = architecture_of(shallow(), nblocks=4, blk_r=2)
    errors = morenas.from_lora(lora_run / "adapter", found, tmp_path / "more")
    assert errors.keys() == found.modules.keys() and all(0 < error < 1 for error in errors.values())
    model = PeftModel.from_pretrained(load_pretrained(str(tiny_model), 2).model, tmp_path / "more")
    theirs: Any = PeftModel.from_pretrained(load_pretrained(str(tiny_model), 2).model, lora_run / "adapter")
    for name, layer in more_layers(model).items():
        wanted = theirs.get_submodule(f"base_model.model.{name}").get_delta_weight("default")
        lost = float((wanted - layer.get_delta_weight("default")).norm() / wanted.norm())
        assert lost == pytest.approx(errors[name], rel=1e-4)
    ours, lora = (load_file(folder / ADAPTER) for folder in (tmp_path / "more", lora_run / "adapter"))
    head = "base_model.model.classifier.weight"
    assert torch.equal(ours[head], lora[head])


def test_modules_that_a_lora_leaves_alone_start_at_zero(tiny_model: Path, tmp_path: Path) -> None:
    model: Any = load_pretrained(str(tiny_model), 2).model
    lora = get_peft_model(model, LoraConfig(r=2, target_modules=["query"], init_lora_weights=False))
    lora.save_pretrained(str(tmp_path / "lora"), save_embedding_layers=False)
    errors = morenas.from_lora(tmp_path / "lora", architecture_of(shallow(), nblocks=1, blk_r=2), tmp_path / "o")
    assert len(errors) == 1 and max(errors.values()) < 1e-6
    again = PeftModel.from_pretrained(load_pretrained(str(tiny_model), 2).model, tmp_path / "o")
    assert difference(logits(again), logits(lora)) <= 1e-5


def test_an_architecture_of_another_size_is_refused(lora_run: Path, tmp_path: Path) -> None:
    found = architecture_of(tiny_classifier(hidden_size=32), nblocks=4, blk_r=2)
    with pytest.raises(InputError, match="16 -> 16 in the LoRA and 32 -> 32 in the architecture"):
        morenas.from_lora(lora_run / "adapter", found, tmp_path / "more")
    with pytest.raises(InputError, match="type LORA, not MORENAS"):
        morenas.to_lora(lora_run / "adapter", tmp_path / "lora")
