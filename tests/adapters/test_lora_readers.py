"""An exported LoRA is, to every tool that reads it, the function that it was written from; or it is not written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lora_readers import READERS, Refused, served
from peft import PeftModel, get_peft_model
from tiny_adapters import KINDS, base_weights, mixed, more_config, same
from tiny_exports import ADAPTER, difference, outputs
from tiny_mixtures import MIXTURES, MOVED, tiny_mixture
from tiny_models import CLASSIFIERS, LANGUAGE_MODELS, Tiny, tiny_classifier
from transformers import AutoModelForCausalLM

import morenas
from morenas.adapters.lora import lora_pairs
from morenas.base.errors import InputError
from morenas.export.base import read_tensors
from morenas.models import target_linears

MODELS = [*CLASSIFIERS, *LANGUAGE_MODELS]


@pytest.mark.parametrize("tiny", MODELS, ids=str)
def test_every_server_computes_what_the_adapter_computes(tiny: Tiny, tmp_path: Path) -> None:
    model = mixed(tiny)
    expected = outputs(model, tiny)
    done = morenas.to_lora(model, tmp_path / "lora")
    assert len(set(done.ranks.values())) == 1 and not done.unread
    for reader in READERS:
        logits = outputs(served(tiny.model(), tmp_path / "lora", reader), tiny)
        assert difference(logits, expected) <= 1e-5 * float(expected.abs().max()), reader


@pytest.mark.parametrize("tiny", KINDS, ids=str)
def test_mixed_ranks_are_for_peft_alone_and_say_so(tiny: Tiny, tmp_path: Path) -> None:
    model = mixed(tiny)
    expected = outputs(model, tiny)
    done = morenas.to_lora(model, tmp_path / "lora", for_="peft")
    off = {
        reader: difference(outputs(served(tiny.model(), tmp_path / "lora", reader), tiny), expected)
        for reader in ("PEFT", "llama.cpp")
    }
    assert off["PEFT"] <= 1e-5 * float(expected.abs().max()) and off["llama.cpp"] > 1e-3
    (words,) = done.unread
    card = (tmp_path / "lora" / "README.md").read_text()
    assert "ranks that differ by module" in words and words in card and "for=servers" in card
    one, other = (
        sum(len(tensor.flatten()) for tensor in read_tensors(folder / ADAPTER).values())
        for folder in (tmp_path / "lora", to_lora(model, tmp_path / "servers"))
    )
    assert one < other


@pytest.mark.parametrize("changes", [{"modules_to_save": ["classifier"]}, {"bias": "all"}], ids=str)
def test_what_servers_do_not_read_is_said_with_the_way_out(changes: dict[str, Any], tmp_path: Path) -> None:
    done = morenas.to_lora(mixed("bert", **changes), tmp_path / "lora")
    (words,) = done.unread
    card = (tmp_path / "lora" / "README.md").read_text()
    assert words in card and "export with to=merged" in card and "compute the same function" not in card
    with pytest.raises(Refused):
        served(tiny_classifier(), tmp_path / "lora", "vLLM")


def test_readers_that_there_are_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"for=peff: choose from servers, peft \(did you mean 'peft'"):
        morenas.to_lora(mixed(), tmp_path / "lora", for_="peff")


def to_lora(model: Any, folder: Path) -> Path:
    morenas.to_lora(model, folder)
    return folder


@pytest.mark.parametrize("name", MOVED)
def test_a_lora_that_peft_would_put_elsewhere_is_not_written(name: str, tmp_path: Path) -> None:
    task = tiny_mixture(name)
    model = get_peft_model(task, more_config(task, target_modules=list(target_linears(task))))
    before = base_weights(model)
    with pytest.raises(InputError, match=r"PEFT does not read this LoRA back .*gate_proj.*to=merged"):
        morenas.to_lora(model, tmp_path / "lora")
    assert not (tmp_path / "lora").exists() and same(before, base_weights(model))
    ids = {"input_ids": torch.arange(5, 21)[None]}
    with torch.no_grad():
        expected = model.eval()(**ids).logits
        morenas.to_merged(model, tmp_path / "merged")
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
        assert difference(merged(**ids).logits, expected) <= 1e-5


@pytest.mark.parametrize("name", MIXTURES)
def test_what_peft_leaves_alone_in_a_mixture_of_experts_is_written(name: str, tmp_path: Path) -> None:
    task = tiny_mixture(name)
    targets = [target for target in target_linears(task) if "self_attn" in target or name == "qwen2_moe"]
    model = get_peft_model(task, more_config(task, target_modules=targets)).eval()
    ids = {"input_ids": torch.arange(5, 21)[None]}
    morenas.to_lora(model, tmp_path / "lora")
    lora = PeftModel.from_pretrained(tiny_mixture(name), tmp_path / "lora").eval()
    with torch.no_grad():
        assert difference(lora(**ids).logits, model(**ids).logits) <= 1e-5


def test_a_lora_that_computes_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = mixed("llama")
    halved = {name: (a, b / 2) for name, (a, b) in lora_pairs(model).items()}
    monkeypatch.setattr("morenas.export.forms.lora_pairs", lambda model: halved)
    with pytest.raises(InputError, match="its logits are off by"):
        morenas.to_lora(model, tmp_path / "lora")


@pytest.mark.parametrize("merged", [False, True])
def test_exporting_leaves_the_model_as_it_was(merged: bool, tmp_path: Path) -> None:
    model = mixed("llama", bias="all", modules_to_save=["score"]).train()
    if merged:
        model.merge_adapter()
    before, flags = dict(model.state_dict()), [(p.requires_grad, id(p)) for p in model.parameters()]
    before = {name: value.clone() for name, value in before.items()}
    modes = [module.training for module in model.modules()]
    morenas.to_lora(model, tmp_path / "lora")
    assert same(before, dict(model.state_dict()))
    assert flags == [(p.requires_grad, id(p)) for p in model.parameters()]
    assert modes == [module.training for module in model.modules()]
