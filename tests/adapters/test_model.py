"""Which modules get an adapter, and of which kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import get_peft_model
from tiny_adapters import adapted, logits
from tiny_models import tiny_batch, tiny_classifier
from torch import nn

from morenas.adapters import MoReConfig, MoReLayer, set_factors
from morenas.errors import InputError


def modules(**config: Any) -> set[str]:
    model = get_peft_model(tiny_classifier(), MoReConfig(**config))
    return {
        name.removeprefix("base_model.model.bert.encoder.")
        for name, module in model.named_modules()
        if isinstance(module, MoReLayer)
    }


def test_targets_are_pepts_own_words() -> None:
    query = {f"layer.{index}.attention.self.query" for index in range(2)}
    assert modules(target_modules=["query"]) == query
    assert modules(target_modules=r".*\.layer\.1\.attention\.self\.query") == {"layer.1.attention.self.query"}
    assert modules(target_modules=["query"], layers_to_transform=[0]) == {"layer.0.attention.self.query"}
    assert modules(target_modules=["query", "key"], exclude_modules=["key"]) == query
    assert {name for name in modules(target_modules="all-linear") if "attention.self" in name} >= query
    assert modules() == query | {f"layer.{index}.attention.self.value" for index in range(2)}  # PEFT's choice for BERT


def test_an_architecture_is_exact_where_peft_shortens_names() -> None:
    names = [f"bert.encoder.layer.{index}.attention.self.query" for index in range(2)]
    shapes = {names[0]: {"nblocks": 2, "blk_r": 1}}
    assert modules(architecture=shapes) == {"layer.0.attention.self.query"}


@pytest.mark.parametrize(("bias", "learning"), [("none", 0), ("morenas_only", 2), ("all", None)])
def test_biases_are_trained_as_asked(bias: str, learning: int | None) -> None:
    model = get_peft_model(tiny_classifier(), MoReConfig(target_modules=["query"], bias=bias))
    biases = [name for name, p in model.named_parameters() if name.endswith("bias") and p.requires_grad]
    every = [name for name, _ in model.named_parameters() if name.endswith("bias")]
    assert len(biases) == (len(every) if learning is None else learning)


def test_a_module_that_is_not_linear_is_refused() -> None:
    with pytest.raises(TypeError, match=r"word_embeddings': a Embedding cannot take a Monarch adapter"):
        get_peft_model(tiny_classifier(), MoReConfig(target_modules=["word_embeddings"]))


def test_without_padding_a_count_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"16 features cannot be cut into nblocks=3 .* 1, 2, 4, 8, 16 or set pad=true"):
        get_peft_model(tiny_classifier(), MoReConfig(target_modules=["query"], nblocks=3, pad=False))


def test_dropout_acts_in_training_alone() -> None:
    model = adapted(dropout=0.5)
    assert torch.equal(logits(model), logits(model))
    model.train()
    batch = tiny_batch()
    assert not torch.equal(model(**batch).logits, model(**batch).logits)


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


def test_a_frozen_base_in_half_precision_takes_a_float32_adapter() -> None:
    model = tiny_classifier()
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    adapter = get_peft_model(model, MoReConfig(target_modules=["query"], init_weights=False))
    layers = [module for module in adapter.modules() if isinstance(module, MoReLayer)]
    assert {layer.morenas_first["default"].dtype for layer in layers} == {torch.float32}
    loss = adapter.train()(**tiny_batch()).loss
    loss.backward()
    assert loss.dtype == torch.bfloat16
    assert all(layer.morenas_first["default"].grad.dtype == torch.float32 for layer in layers)


def test_autocast_changes_little() -> None:
    model = adapted()
    exact = logits(model)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(logits(model).float(), exact, atol=0.05, rtol=0.05)


def test_a_deep_copy_is_independent() -> None:
    import copy

    model = adapted()
    expected = logits(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(logits(model), expected)
    assert isinstance(other, nn.Module)
