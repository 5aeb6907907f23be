"""Merging adds what the adapter computes, and unmerging takes it away without a trace."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import get_peft_model
from tiny_adapters import adapted, base_weights, linears, logits, same
from tiny_exports import difference, outputs
from tiny_models import Tiny, tiny_batch, tiny_classifier
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm

from morenas.adapters import MoReConfig, MoReLayer

FAMILIES = ["bert", "gpt2", "llama"]  # nn.Linear, Conv1D, rectangular projections


@pytest.mark.parametrize("family", FAMILIES)
def test_twenty_cycles_with_dropout_leave_the_frozen_weights_bit_identical(family: str) -> None:
    model = adapted(Tiny(family, causal=False, layers=1), dropout=0.1)
    before = base_weights(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for cycle in range(20):
        model.train()
        model(**tiny_batch(seed=cycle)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        model.merge_adapter()
        logits(model)
        model.unmerge_adapter()
    assert same(before, base_weights(model))


def test_a_base_in_half_precision_comes_back_bit_for_bit() -> None:
    model = adapted().to(torch.bfloat16)
    before, merged = base_weights(model), 0
    for _ in range(5):
        model.merge_adapter()
        merged += not same(before, base_weights(model))
        model.unmerge_adapter()
        assert same(before, base_weights(model))
    assert merged == 5


def test_a_model_that_changed_its_precision_while_merged_is_unmerged_in_the_new_one() -> None:
    model, plain = adapted(), tiny_classifier()
    model.merge_adapter()
    for either in (model, plain):
        nn.Module.to(either, torch.bfloat16)
    model.unmerge_adapter()
    found = {name.replace("base_layer.", ""): value for name, value in base_weights(model.get_base_model()).items()}
    assert same(found, dict(plain.state_dict()))


def test_a_half_precision_adapter_costs_a_float32_base_no_precision() -> None:
    model = adapted()
    before = base_weights(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "morenas_" in name:
                parameter.data = torch.zeros_like(parameter, dtype=torch.bfloat16)
    model.merge_adapter()
    assert same(before, base_weights(model))


def test_disabling_merged_adapters_gives_the_frozen_model_back() -> None:
    model = adapted()
    expected, before = logits(model), base_weights(model)
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(tiny_classifier()))
    assert torch.equal(logits(model), expected) and same(before, base_weights(model))


def test_eval_does_not_merge_by_itself() -> None:
    model = adapted()
    before = base_weights(model)
    model.eval()
    assert same(before, base_weights(model))


def test_two_adapters_merge_to_the_sum_of_their_deltas() -> None:
    model = adapted()
    torch.manual_seed(1)
    model.add_adapter("second", MoReConfig(target_modules=linears(tiny_classifier()), nblocks=4, init_weights=False))
    layer: Any = next(module for module in model.modules() if isinstance(module, MoReLayer))
    before = layer.get_base_layer().weight.detach().clone()
    expected = before + layer.get_delta_weight("default") + layer.get_delta_weight("second")
    layer.merge(adapter_names=["default", "second"])
    torch.testing.assert_close(layer.get_base_layer().weight, expected)
    layer.unmerge()
    assert torch.equal(layer.get_base_layer().weight, before)


def test_two_active_adapters_add_up() -> None:
    model = adapted("gpt2")
    torch.manual_seed(1)
    model.add_adapter("second", MoReConfig(target_modules=linears(tiny_classifier("gpt2")), init_weights=False))
    alone = logits(model)
    model.base_model.set_adapter(["default", "second"])
    together = logits(model)
    assert not torch.allclose(together, alone)
    model.merge_adapter()
    torch.testing.assert_close(logits(model), together, atol=1e-6, rtol=1e-5)


def test_merging_one_after_the_other_unmerges_to_the_start() -> None:
    model = adapted()
    torch.manual_seed(1)
    model.add_adapter("second", MoReConfig(target_modules=linears(tiny_classifier()), init_weights=False))
    before = base_weights(model)
    model.merge_adapter(["default"])
    model.merge_adapter(["second"])
    model.unmerge_adapter()
    assert same(before, base_weights(model))


def test_a_safe_merge_refuses_what_is_not_finite_and_changes_nothing() -> None:
    model = adapted()
    layer = next(module for module in model.modules() if isinstance(module, MoReLayer))
    before = base_weights(model)
    with torch.no_grad():
        layer.morenas_first["default"][0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match="not finite"):
        layer.merge(safe_merge=True)
    assert same(before, base_weights(model))


def test_unmerging_twice_warns() -> None:
    layer = next(module for module in adapted().modules() if isinstance(module, MoReLayer))
    with pytest.warns(UserWarning, match="Already unmerged"):
        layer.unmerge()


def test_a_merged_delta_equals_what_the_layer_computes() -> None:
    model = adapted("gpt2", target_modules=["c_attn"], nblocks=3)
    layer = next(module for module in model.modules() if isinstance(module, MoReLayer))
    x = torch.randn(5, layer.in_features)
    change = layer(x) - layer.get_base_layer()(x)
    torch.testing.assert_close(change, x @ layer.get_delta_weight("default"), atol=1e-5, rtol=1e-5)


class Shared(nn.Module):
    """Two layers of one weight, and the same layer in two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.b.weight = self.a.weight
        self.blocks = nn.ModuleList([nn.ModuleDict({"c": nn.Linear(8, 8)}), nn.ModuleDict()])
        self.blocks[1]["c"] = self.blocks[0]["c"]  # type: ignore[index,operator]

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.a, self.b, *(block["c"] for block in self.blocks)):  # type: ignore[index]
            x = layer(x).relu()
        return x


def shared() -> tuple[Any, Shared, Tensor]:
    """Adapters on a model of shared weights, the same model without, and an input."""
    torch.manual_seed(0)
    plain = Shared()
    config = MoReConfig(nblocks=2, blk_r=2, target_modules=["a", "b", "c"], init_weights=False)
    return get_peft_model(copy.deepcopy(plain), config).eval(), plain, torch.randn(5, 8)


def test_merging_gives_each_layer_of_a_shared_weight_its_own_sum_and_leaves_the_frozen_ones_alone() -> None:
    model, _, x = shared()
    frozen, before, expected = dict(model.named_parameters()), base_weights(model), model(x)
    model.merge_adapter()
    torch.testing.assert_close(model(x), expected, atol=1e-6, rtol=1e-5)
    model.unmerge_adapter()
    assert same(before, base_weights(model))
    assert all(parameter is frozen[name] for name, parameter in model.named_parameters())


def test_disabling_merged_adapters_of_shared_weights_gives_the_frozen_model_back() -> None:
    model, plain, x = shared()
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(model(x), plain(x))


@pytest.mark.parametrize("merged", [False, True])
def test_unloading_gives_the_frozen_model_back(merged: bool) -> None:
    model, plain, x = shared()
    if merged:
        model.merge_adapter()
    bare = model.unload()
    assert torch.equal(bare(x), plain(x)) and same(dict(bare.state_dict()), dict(plain.state_dict()))
    assert bare.a.weight is bare.b.weight


def test_unloading_what_is_merged_computes_the_same() -> None:
    model, _, x = shared()
    expected = model(x)
    torch.testing.assert_close(model.merge_and_unload()(x), expected, atol=1e-6, rtol=1e-5)


def test_an_output_layer_tied_to_the_embedding_is_merged_without_it() -> None:
    tiny = Tiny("llama", options=(("tie_word_embeddings", True),))
    model = adapted(tiny, target_modules=["q_proj", "lm_head"])
    expected, embedding = outputs(model, tiny), model.get_input_embeddings().weight.detach().clone()
    model.merge_adapter()
    assert difference(outputs(model, tiny), expected) <= 1e-5
    model.unmerge_adapter()
    task = model.get_base_model()
    assert task.lm_head.get_base_layer().weight is task.get_input_embeddings().weight
    with pytest.warns(UserWarning, match="no longer tied"):
        plain = model.merge_and_unload()
    assert difference(outputs(plain, tiny), expected) <= 1e-5 and not plain.config.tie_word_embeddings
    assert torch.equal(plain.get_input_embeddings().weight, embedding)


def old_weight_norm(layer: nn.Linear) -> nn.Linear:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return weight_norm(layer)


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm, old_weight_norm])
def test_a_weight_that_is_computed_at_every_pass_is_not_merged_into(norm: Callable[[nn.Linear], nn.Module]) -> None:
    model = nn.ModuleDict({"normed": norm(nn.Linear(8, 8))}).eval()
    x = torch.randn(3, 8)
    expected = model["normed"](x)
    adapter = get_peft_model(model, MoReConfig(nblocks=2, target_modules=["normed"]))
    with pytest.raises(TypeError, match="computed from other parameters at every pass"):
        adapter.merge_and_unload()
    assert torch.equal(adapter.unload().get_submodule("normed")(x), expected)
