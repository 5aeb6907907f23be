"""An adapter's files, and the ways into a model that PEFT and transformers offer for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from grids import in_turn
from peft import (
    PeftModel,
    convert_to_lora,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from safetensors import safe_open
from tiny_adapters import KINDS, MODELS, adapted, learning, linears, logits, more_config, same
from tiny_models import LANGUAGE_MODELS, Tiny, tiny_classifier
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from morenas.adapters import MoReConfig
from morenas.models import target_linears
from morenas.models.heads import find_head

over_kinds = pytest.mark.parametrize("tiny", KINDS, ids=str)
over_language_models = pytest.mark.parametrize("tiny", LANGUAGE_MODELS, ids=str)
LLAMA = Tiny("llama")


def unwrapped(model: Any) -> dict[str, Tensor]:
    """The adapter of a PEFT model under the names it has in the task model."""
    return {key.removeprefix("base_model.model."): value for key, value in get_peft_model_state_dict(model).items()}


@in_turn(tiny=MODELS, sparing=[False, True, True])
def test_a_saved_adapter_loads_bit_for_bit(tiny: Tiny, sparing: bool, tmp_path: Path) -> None:
    model = adapted(tiny, nblocks=4, blk_r=3, link="monarch")
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny.model(), tmp_path, low_cpu_mem_usage=sparing)
    assert torch.equal(logits(again), logits(model))
    assert not learning(again) and not any(p.is_meta for p in again.parameters())
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }


@over_kinds
def test_the_file_holds_two_factors_a_module_under_plain_names(tiny: Tiny, tmp_path: Path) -> None:
    model = adapted(tiny)
    model.save_pretrained(tmp_path)
    keys = {f"base_model.model.{name}.morenas_{kind}" for name in linears(tiny.model()) for kind in ("first", "second")}
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        assert set(file.keys()) == keys == set(get_peft_model_state_dict(model))


@over_kinds
def test_a_state_dict_goes_into_another_model_under_another_name(tiny: Tiny) -> None:
    model, other = adapted(tiny, seed=1), get_peft_model(tiny.model(), more_config(tiny.model()), adapter_name="other")
    done: Any = set_peft_model_state_dict(other, get_peft_model_state_dict(model), adapter_name="other")
    assert not done.unexpected_keys and torch.equal(logits(other), logits(model))


@over_kinds
def test_a_loaded_adapter_can_be_trained_on(tiny: Tiny, tmp_path: Path) -> None:
    model = adapted(tiny)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny.model(), tmp_path, is_trainable=True)
    assert learning(again) == learning(model)


@pytest.mark.parametrize("tiny", MODELS, ids=str)
def test_a_trained_head_is_saved_and_loaded(tiny: Tiny, tmp_path: Path) -> None:
    head = find_head(tiny.model())[-1]
    model = adapted(tiny, modules_to_save=[head])
    trained = {name for name in learning(model) if "morenas_" not in name}
    assert trained and all(f"{head}.modules_to_save.default" in name for name in trained)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in trained:
                parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    expected = logits(model)
    assert torch.equal(logits(PeftModel.from_pretrained(tiny.model(), tmp_path)), expected)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(tiny.model()))
    torch.testing.assert_close(logits(model.merge_and_unload()), expected, atol=1e-5, rtol=1e-4)


@in_turn(tiny=MODELS, bias=["all", "morenas_only", "all"])
def test_trained_biases_are_saved_and_loaded(tiny: Tiny, bias: str, tmp_path: Path) -> None:
    model = adapted(tiny, bias=bias)
    every = {name for name, _ in model.named_parameters() if name.endswith(".bias")}
    trained = {name for name in learning(model) if name.endswith("bias")}
    assert trained == (every if bias == "all" else {name for name in every if ".base_layer." in name})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in trained:
                parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(tiny.model(), tmp_path)), logits(model))


def test_a_task_type_trains_and_saves_its_head_unasked(tmp_path: Path) -> None:
    tiny = Tiny("mistral", causal=False)
    model = adapted(tiny, target_modules="all-linear", task_type="SEQ_CLS")
    assert any(".score.modules_to_save." in name for name in learning(model))
    nn.init.normal_(model.base_model.model.score.weight)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(tiny.model(), tmp_path)), logits(model))


def test_adapters_whose_names_contain_each_other_are_saved_apart(tmp_path: Path) -> None:
    names = ("some", "some_more", "morenas_")
    model: Any = get_peft_model(LLAMA.model(), more_config(LLAMA.model()), adapter_name=names[0])
    for seed, name in enumerate(names[1:], start=1):
        model.add_adapter(name, more_config(LLAMA.model(), seed, nblocks=4))
    model.save_pretrained(tmp_path)
    for name in names:
        model.set_adapter(name)
        again = PeftModel.from_pretrained(LLAMA.model(), tmp_path / name)
        assert torch.equal(logits(again), logits(model)), name


@over_language_models
def test_a_folder_with_an_adapter_opens_as_a_language_model(tiny: Tiny, tmp_path: Path) -> None:
    base = tiny.save(tmp_path / "base")
    model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base), more_config(tiny.model()))
    model.save_pretrained(tmp_path / "adapter")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert same(get_peft_model_state_dict(again), unwrapped(model))
    torch.testing.assert_close(logits(again), logits(model))


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


@over_kinds
def test_several_saved_adapters_live_side_by_side(tiny: Tiny, tmp_path: Path) -> None:
    one, other = adapted(tiny, seed=1), adapted(tiny, seed=2, nblocks=4)
    one.save_pretrained(tmp_path / "one")
    other.save_pretrained(tmp_path / "other")
    model = PeftModel.from_pretrained(tiny.model(), tmp_path / "one", adapter_name="one")
    model.load_adapter(tmp_path / "other", adapter_name="other")
    assert torch.equal(logits(model), logits(one))
    model.set_adapter("other")
    assert torch.equal(logits(model), logits(other))


@over_kinds
def test_transformers_own_models_take_save_and_load_it(tiny: Tiny, tmp_path: Path) -> None:
    model, plain = tiny.model(), logits(tiny.model())
    model.add_adapter(more_config(model), adapter_name="own")
    trained = logits(model)
    assert model.active_adapters() == ["own"] and not torch.allclose(trained, plain)
    model.disable_adapters()
    assert torch.equal(logits(model), plain)
    model.enable_adapters()
    model.save_pretrained(tmp_path)
    again = tiny.model()
    again.load_adapter(str(tmp_path))
    assert same(get_peft_model_state_dict(again), get_peft_model_state_dict(model, adapter_name="own"))
    torch.testing.assert_close(logits(again), trained)
    again.delete_adapter("default")
    assert torch.equal(logits(again), plain)


@over_kinds
def test_injected_it_is_the_same_adapter_without_a_wrapper(tiny: Tiny) -> None:
    plain = tiny.model()
    injected = inject_adapter_in_model(more_config(plain), plain)
    model = adapted(tiny)
    assert injected is plain and torch.equal(logits(injected), logits(model))
    assert same(get_peft_model_state_dict(injected), unwrapped(model))


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_transformers_own_models_take_an_architecture(family: str, tmp_path: Path) -> None:
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


@over_kinds
def test_peft_turns_it_into_a_lora_of_rank_n_times_r(tiny: Tiny) -> None:
    model = adapted(tiny, nblocks=2, blk_r=1)
    config, state = convert_to_lora(model, rank=2)
    lora = get_peft_model(tiny.model(), config)
    set_peft_model_state_dict(lora, state)
    torch.testing.assert_close(logits(lora), logits(model), atol=1e-5, rtol=1e-4)
