"""Which modules get an adapter, and of which kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_adapters import adapted
from tiny_models import tiny_classifier
from torch import Tensor, nn

from morenas.adapters import MoReConfig, MoReLayer, set_factors
from morenas.base.errors import InputError
from morenas.models import target_linears


def modules(**config: Any) -> set[str]:
    model = get_peft_model(tiny_classifier(), MoReConfig(**config))
    return {
        name.removeprefix("base_model.model.bert.encoder.")
        for name, module in model.named_modules()
        if isinstance(module, MoReLayer)
    }


def test_an_architecture_is_exact_where_peft_shortens_names() -> None:
    names = [f"bert.encoder.layer.{index}.attention.self.query" for index in range(2)]
    shapes = {names[0]: {"nblocks": 2, "blk_r": 1}}
    assert modules(architecture=shapes) == {"layer.0.attention.self.query"}


def test_an_adapter_inside_a_module_that_is_trained_whole_is_refused_by_name_and_left_out_of_a_pattern() -> None:
    shape = {"nblocks": 2, "blk_r": 1}
    with pytest.raises(InputError, match=r"'classifier.dense'.*modules_to_save"):
        adapted("roberta", architecture={"classifier.dense": shape}, modules_to_save=["classifier"])
    whole = adapted("roberta", architecture={r".*\.dense": shape}, modules_to_save=["classifier"])
    assert whole.targeted_module_names
    assert not any(name.startswith("classifier") for name in whole.targeted_module_names)


def test_a_module_that_is_not_linear_is_refused() -> None:
    with pytest.raises(TypeError, match=r"word_embeddings' cannot take a Monarch adapter: a Embedding is no"):
        get_peft_model(tiny_classifier(), MoReConfig(target_modules=["word_embeddings"]))


def test_a_projection_that_is_never_called_is_refused() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16)
    with pytest.raises(TypeError, match=r"self_attn.out_proj' cannot take .*without calling it"):
        get_peft_model(model, MoReConfig(target_modules=["out_proj"]))


class Squash(nn.Linear):
    """A subclass of ``nn.Linear`` that is no linear map, as the routers of some mixtures of experts."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).tanh()


def test_a_linear_layer_with_a_forward_of_its_own_is_left_out_of_all_linear_and_refused_by_name() -> None:
    model = nn.ModuleDict({"plain": nn.Linear(4, 4), "router": Squash(4, 4)})
    adapted = get_peft_model(model, MoReConfig(target_modules="all-linear"))
    assert adapted.targeted_module_names == ["plain"]
    with pytest.raises(TypeError, match=r"'router' cannot take .*its Squash has a forward of its own"):
        get_peft_model(nn.ModuleDict({"router": Squash(4, 4)}), MoReConfig(target_modules=["router"]))


def test_all_linear_takes_a_layer_with_another_adapter_as_a_whole() -> None:
    lora: Any = get_peft_model(tiny_classifier(), LoraConfig(target_modules=["query", "value"]))
    model = get_peft_model(lora.base_model.model, MoReConfig(target_modules="all-linear"))
    assert sorted(model.targeted_module_names) == sorted(target_linears(tiny_classifier(), ".*"))


class PackedLinear(nn.Linear):
    """A linear layer whose weight is kept as whole numbers in another shape, as quantizers do."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features)
        self.scale = linear.weight.detach().abs().max() / 127
        packed = (linear.weight.detach() / self.scale).round().to(torch.int8).flatten()
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = linear.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        weight = self.weight.view(self.out_features, self.in_features) * self.scale
        return nn.functional.linear(input, weight, self.bias)


def test_a_quantized_layer_takes_an_adapter_but_no_merge() -> None:
    net = nn.Sequential(PackedLinear(nn.Linear(6, 8)))
    x = torch.randn(3, 6)
    plain = net(x)
    model = get_peft_model(net, MoReConfig(target_modules=["0"], nblocks=2, blk_r=2, init_weights=False))
    layer: Any = net[0]
    torch.testing.assert_close(model(x), plain + x @ layer.get_delta_weight("default").T)
    with pytest.raises(TypeError, match="int8"):
        model.merge_adapter()
    assert torch.equal(model.unload()(x), plain)


def test_without_padding_a_count_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"16 features cannot be cut into nblocks=3 .* 1, 2, 4, 8, 16 or set pad=true"):
        get_peft_model(tiny_classifier(), MoReConfig(target_modules=["query"], nblocks=3, pad=False))


def test_factors_trained_elsewhere_are_taken_over() -> None:
    model = adapted(target_modules=["query"])
    name = "bert.encoder.layer.0.attention.self.query"
    layer = model.base_model.model.get_submodule(name)
    first, second = torch.randn(2, 2, 8), torch.randn(2, 8, 2)
    set_factors(model, {name: (first, second)})
    assert torch.equal(layer.morenas_first["default"], first) and torch.equal(layer.morenas_second["default"], second)
    with pytest.raises(InputError, match="has no adapter"):
        set_factors(model, {name.replace("query", "key"): (first, second)})
    with pytest.raises(InputError, match="does not fit"):
        set_factors(model, {name: (second, first[:1])})
