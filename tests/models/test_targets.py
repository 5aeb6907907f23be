"""Targets are the linear layers that an adapter can go to, and no others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from peft import LoraConfig, get_peft_model
from tiny_models import (
    CLASSIFIERS,
    FAMILIES,
    HIDDEN,
    INTERMEDIATE,
    LANGUAGE_MODELS,
    LAYERS,
    Tiny,
    tiny_batch,
    tiny_classifier,
)
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PhimoeConfig
from transformers.pytorch_utils import Conv1D

from morenas.adapters import MoReConfig
from morenas.base.errors import InputError
from morenas.models import target_linears
from morenas.models.heads import find_head
from morenas.space import build_space
from morenas.supernet import Supernet

LINEARS = {
    "bert": 6 * LAYERS,
    "roberta": 6 * LAYERS,
    "distilbert": 6 * LAYERS,
    "deberta-v2": 6 * LAYERS,
    "electra": 6 * LAYERS + 1,  # and the projection of its embeddings
    "gpt2": 4 * LAYERS,
    "llama": 7 * LAYERS,
    "qwen2": 7 * LAYERS,
    "mistral": 7 * LAYERS,
    "gemma": 7 * LAYERS,
    "phi": 6 * LAYERS,
    "gpt_neox": 4 * LAYERS,
    "opt": 6 * LAYERS,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_all_linear_finds_every_layer_of_the_network_and_none_of_the_head(family: str) -> None:
    model = tiny_classifier(family)
    head = find_head(model)
    targets = target_linears(model, "all-linear", head)
    assert len(targets) == LINEARS[family]
    assert not any(name.split(".")[0] in head or "pooler" in name for name in targets)
    assert list(targets) == [name for name, _ in model.named_modules() if name in targets]


@pytest.mark.parametrize("tiny", LANGUAGE_MODELS, ids=str)
def test_all_linear_leaves_out_the_output_layer_of_a_language_model_and_nothing_else(tiny: Tiny) -> None:
    model = tiny.model()
    output = model.get_output_embeddings()
    tied = output.weight is model.get_input_embeddings().weight
    assert tied == bool(model.config.tie_word_embeddings)
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    assert list(target_linears(model)) == [name for name, module in linears.items() if module is not output]
    assert len(target_linears(model)) == LINEARS[tiny.family] + 2 * ("word_embed_proj_dim" in dict(tiny.options))


@pytest.mark.parametrize("tiny", LANGUAGE_MODELS, ids=str)
def test_all_linear_is_what_the_adapter_takes_it_for(tiny: Tiny) -> None:
    model = tiny.model()
    targets = target_linears(model, "all-linear")
    adapted = get_peft_model(model, MoReConfig(target_modules="all-linear"))
    assert sorted(adapted.targeted_module_names) == sorted(targets)


@pytest.mark.parametrize("tiny", (*CLASSIFIERS, *LANGUAGE_MODELS), ids=str)
def test_shapes_are_those_of_the_layer_as_a_function(tiny: Tiny) -> None:
    model = tiny.model()
    for name, (inputs, outputs) in target_linears(model, exclude=find_head(model)).items():
        assert model.get_submodule(name)(torch.zeros(1, inputs)).shape == (1, outputs)


@pytest.mark.parametrize(("family", "fused"), [("gpt2", "c_attn"), ("gpt_neox", "query_key_value")])
def test_a_fused_projection_is_one_target_three_times_as_wide(family: str, fused: str) -> None:
    assert set(target_linears(Tiny(family).model(), [fused]).values()) == {(HIDDEN, 3 * HIDDEN)}


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral", "gemma"])
def test_keys_and_values_of_grouped_queries_are_narrower(family: str) -> None:
    model = Tiny(family).model()
    assert set(target_linears(model, ["k_proj", "v_proj"]).values()) == {(HIDDEN, HIDDEN // 2)}
    assert set(target_linears(model, ["q_proj"]).values()) == {(HIDDEN, HIDDEN)}


def test_conv1d_is_not_read_transposed() -> None:
    targets = target_linears(tiny_classifier("gpt2"), ["c_attn", "c_fc"])
    assert set(targets.values()) == {(HIDDEN, 3 * HIDDEN), (HIDDEN, INTERMEDIATE)}


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "distilbert"])
def test_auto_is_what_peft_targets_by_default(family: str) -> None:
    from peft import LoraConfig

    model = tiny_classifier(family)
    targets = target_linears(model, "auto", find_head(model))
    peft_model = get_peft_model(model, LoraConfig())
    assert sorted(targets) == sorted(peft_model.targeted_module_names)


def test_auto_without_defaults_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"'distilbert'.*all-linear"):
        target_linears(tiny_classifier("distilbert"), "auto")


def test_names_match_as_endings_of_whole_words() -> None:
    model = tiny_classifier("bert")
    assert len(target_linears(model, ["query", "value"])) == 2 * LAYERS
    assert len(target_linears(model, ["attention.output.dense"])) == LAYERS
    with pytest.raises(InputError):
        target_linears(model, ["uery"])


def test_a_regular_expression_matches_the_whole_name() -> None:
    model = tiny_classifier("bert")
    assert len(target_linears(model, r".*layer\.1.*\.(query|key)")) == 2
    with pytest.raises(InputError):
        target_linears(model, r"layer\.1")


def test_the_head_is_no_target_even_when_named() -> None:
    model = tiny_classifier("roberta")
    assert not any(name.startswith("classifier") for name in target_linears(model, ["dense"], find_head(model)))


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [(["querry"], "query"), ("all_linear", "all-linear"), (["intermediate.dens"], "dense")],
)
def test_no_match_names_what_is_near_and_what_is_there(wrong: str | list[str], meant: str) -> None:
    with pytest.raises(InputError, match=rf"{meant}.*There are: .*query"):
        target_linears(tiny_classifier("bert"), wrong)


def test_a_broken_regular_expression_is_refused() -> None:
    with pytest.raises(InputError, match="regular expression"):
        target_linears(tiny_classifier("bert"), "(query")


def test_a_projection_that_is_never_called_is_no_target() -> None:
    model = nn.Sequential(nn.MultiheadAttention(8, 2), nn.Linear(8, 8))
    assert list(target_linears(model)) == ["1"]


class Squash(nn.Linear):
    """A subclass of ``nn.Linear`` that is no linear map, as the routers of some mixtures of experts."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).tanh()


def patched() -> nn.Linear:
    layer = nn.Linear(4, 4)
    layer.forward = lambda x: x  # type: ignore[assignment]
    return layer


@pytest.mark.parametrize("odd", [Squash(4, 4), patched()], ids=["subclass", "patched"])
def test_what_has_a_forward_of_its_own_is_no_linear_layer(odd: nn.Linear) -> None:
    model = nn.ModuleDict({"plain": nn.Linear(4, 4), "odd": odd})
    assert list(target_linears(model)) == list(target_linears(model, ".*")) == ["plain"]
    for names in (["odd"], ["plain", "odd"], "odd"):
        with pytest.raises(InputError, match=r"names 'odd': its \w+ has a forward of its own"):
            target_linears(model, names)


def test_a_router_of_a_mixture_of_experts_is_no_target() -> None:
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = PhimoeConfig(**sizes, vocab_size=40, num_key_value_heads=2, num_local_experts=2)
    model = AutoModelForCausalLM.from_config(config)
    assert any("router" in name for name, module in model.named_modules() if isinstance(module, nn.Linear))
    assert {name.rpartition(".")[2] for name in target_linears(model)} == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_a_quantized_layer_is_linear_though_its_class_has_a_forward() -> None:
    quantizers = pytest.importorskip("bitsandbytes.nn")
    model = nn.Sequential(quantizers.Linear4bit(64, 32), quantizers.Linear8bitLt(32, 16))
    assert target_linears(model) == {"0": (64, 32), "1": (32, 16)}


def test_a_layer_that_accelerate_has_hooked_is_linear() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    add_hook_to_module(model[0], ModelHook())
    assert list(target_linears(model)) == ["0"]


def test_a_layer_with_an_adapter_is_one_target_and_its_insides_are_none() -> None:
    lora: Any = get_peft_model(
        tiny_classifier(), LoraConfig(target_modules=["query", "value"], modules_to_save=["classifier"])
    )
    plain = target_linears(tiny_classifier(), ".*", ["classifier"])
    assert target_linears(lora.base_model.model, ".*") == plain


def test_what_is_a_target_beside_another_adapter_can_be_searched_and_attached_by_the_same_names() -> None:
    model: Any = get_peft_model(tiny_classifier(), LoraConfig(target_modules=["query"])).base_model.model
    targets = target_linears(model, "all-linear", ["classifier"])
    supernet = Supernet(model, build_space(targets, [1, 2], [0, 1], granularity="module"))
    supernet.open()
    assert model(**tiny_batch()).logits.isfinite().all()
    supernet.remove()
    adapted = get_peft_model(model, MoReConfig(target_modules=list(targets)))
    assert sorted(adapted.targeted_module_names) == sorted(targets)
