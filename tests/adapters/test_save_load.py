"""What PEFT does with a method: save, load, several adapters, modules to save."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, convert_to_lora, get_peft_model, set_peft_model_state_dict
from tiny_adapters import adapted, linears, logits
from tiny_models import FAMILIES, save_tiny, tiny_classifier
from transformers import AutoModelForSequenceClassification

from morenas.adapters import MoReConfig
from morenas.models import target_linears


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_adapter_loads_bit_for_bit(family: str, tmp_path: Path) -> None:
    model = adapted(family, nblocks=4, blk_r=3, link="monarch")
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_classifier(family), tmp_path)
    assert torch.equal(logits(again), logits(model))
    assert not list(tmp_path.glob("*.bin"))


def test_an_architecture_comes_back_with_its_shapes(tmp_path: Path) -> None:
    names = linears(tiny_classifier())
    shapes = {name: {"nblocks": 1 + index % 3, "blk_r": 1 + index % 2} for index, name in enumerate(names[:-2])}
    model = adapted(architecture=shapes, target_modules=None)
    model.save_pretrained(tmp_path)
    again: Any = PeftModel.from_pretrained(tiny_classifier(), tmp_path)
    assert torch.equal(logits(again), logits(model))
    adapters = {name.split(".morenas_first")[0] for name, _ in again.named_parameters() if "morenas_first" in name}
    assert adapters == {f"base_model.model.{name}" for name in shapes}
    assert again.peft_config["default"].architecture == shapes


def test_the_config_round_trips_through_its_file(tmp_path: Path) -> None:
    config = MoReConfig(
        nblocks=8, blk_r=3, link="monarch", pad=False, dropout=0.2, bias="all", target_modules=["query"]
    )
    config.save_pretrained(str(tmp_path))
    again = MoReConfig.from_pretrained(str(tmp_path))
    assert again == config
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "MORENAS"


def test_several_adapters_live_side_by_side(tmp_path: Path) -> None:
    one, two = adapted(seed=1), adapted(seed=2, nblocks=4)
    one.save_pretrained(tmp_path / "one")
    two.save_pretrained(tmp_path / "two")
    model = PeftModel.from_pretrained(tiny_classifier(), tmp_path / "one", adapter_name="one")
    model.load_adapter(tmp_path / "two", adapter_name="two")
    assert torch.equal(logits(model), logits(one))
    model.set_adapter("two")
    assert torch.equal(logits(model), logits(two))
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert not any(".one" in name for name in learning)
    model.delete_adapter("one")
    assert torch.equal(logits(model), logits(two))


def test_a_further_adapter_is_not_trained_until_it_is_active() -> None:
    model = adapted()
    model.add_adapter("second", MoReConfig(target_modules=linears(tiny_classifier())))
    assert not any(p.requires_grad for name, p in model.named_parameters() if ".second" in name)
    model.set_adapter("second")
    learning = {name.rsplit(".", 1)[1] for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {"second"}


def test_a_trained_head_is_saved_with_the_adapter(tmp_path: Path) -> None:
    model = adapted(modules_to_save=["classifier"])
    with torch.no_grad():
        model.base_model.model.classifier.weight.add_(1.0)
    expected = logits(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(tiny_classifier(), tmp_path)), expected)


def test_transformers_own_adapter_loading_knows_the_method(tmp_path: Path) -> None:
    base = save_tiny("bert", tmp_path / "base", num_labels=2)
    model = get_peft_model(
        AutoModelForSequenceClassification.from_pretrained(base),
        MoReConfig(target_modules=["query", "value"], init_weights=False),
    )
    model.save_pretrained(str(tmp_path / "adapter"))
    plain = AutoModelForSequenceClassification.from_pretrained(base)
    plain.load_adapter(str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(plain), logits(model))


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_transformers_own_models_take_it_as_an_adapter(family: str, tmp_path: Path) -> None:
    model, plain = tiny_classifier(family), logits(tiny_classifier(family))
    name = linears(model)[0]
    model.add_adapter(MoReConfig(architecture={name: {"nblocks": 4, "blk_r": 2}}))
    assert torch.equal(logits(model), plain)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert sum(map(torch.numel, learning)) == 2 * sum(target_linears(tiny_classifier(family), [name])[name])
    for parameter in learning:
        torch.nn.init.normal_(parameter)
    trained = logits(model)
    assert not torch.allclose(trained, plain)
    model.disable_adapters()
    assert torch.equal(logits(model), plain)
    model.enable_adapters()
    model.save_pretrained(tmp_path)
    again = tiny_classifier(family)
    again.load_adapter(str(tmp_path))
    assert torch.equal(logits(again), trained)


def test_peft_turns_it_into_a_lora_of_rank_n_times_r() -> None:
    model = adapted(nblocks=2, blk_r=1)
    config, state = convert_to_lora(model, rank=2)
    lora = get_peft_model(tiny_classifier(), config)
    set_peft_model_state_dict(lora, state)
    torch.testing.assert_close(logits(lora), logits(model), atol=1e-5, rtol=1e-4)
