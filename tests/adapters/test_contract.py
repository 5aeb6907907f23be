"""What PEFT promises of a method, over models of every family; of its files speaks test_save_load."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from grids import in_turn, pairs
from peft import PeftMixedModel, get_peft_model, prepare_model_for_kbit_training
from peft.utils.hotswap import hotswap_adapter
from tiny_adapters import KINDS, MODELS, adapted, base_weights, learning, linears, logits, more_config, same
from tiny_models import LANGUAGE_MODELS, Tiny
from torch import Tensor, nn

from morenas.adapters import MoReConfig, MoReLayer
from morenas.base.errors import InputError

over_all_models = pytest.mark.parametrize("tiny", MODELS, ids=str)
over_kinds = pytest.mark.parametrize("tiny", KINDS, ids=str)
over_language_models = pytest.mark.parametrize("tiny", LANGUAGE_MODELS, ids=str)
LLAMA = Tiny("llama")


def gradients(model: Any, tiny: Tiny) -> dict[str, Tensor]:
    """Of everything that learns, under fixed dropout."""
    torch.manual_seed(0)
    model.zero_grad()
    model(**tiny.batch()).loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def layer_of(model: nn.Module) -> Any:
    return next(module for module in model.modules() if isinstance(module, MoReLayer))


def two(tiny: Tiny, **second: Any) -> Any:
    """A model with the adapters "default" (active) and "second", of other shapes."""
    model = adapted(tiny, seed=1)
    model.add_adapter("second", more_config(tiny.model(), seed=2, nblocks=4, blk_r=1, **second))
    return model


@over_kinds
def test_an_adapter_starts_as_the_identity(tiny: Tiny) -> None:
    assert torch.equal(logits(adapted(tiny, init_weights=True)), logits(tiny.model()))


@over_kinds
def test_disabling_gives_the_frozen_model_and_enabling_the_adapter_again(tiny: Tiny) -> None:
    model, plain = adapted(tiny), logits(tiny.model())
    trained = logits(model)
    assert not torch.allclose(trained, plain)
    with model.disable_adapter():
        assert torch.equal(logits(model), plain)
    assert torch.equal(logits(model), trained)


@over_all_models
def test_only_adapters_learn_and_all_of_them_do(tiny: Tiny) -> None:
    model = adapted(tiny).train()
    grads, factors = gradients(model, tiny), {name for name, _ in model.named_parameters() if "morenas_" in name}
    assert set(grads) == learning(model) == factors
    assert len(factors) == 2 * len(linears(tiny.model())) and all((grad != 0).any() for grad in grads.values())


@over_kinds
def test_trainable_parameters_are_counted_and_told(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    model = adapted(tiny)
    trainable, every = model.get_nb_trainable_parameters()
    assert trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert every - trainable == sum(p.numel() for p in tiny.model().parameters())
    model.print_trainable_parameters()
    assert f"trainable params: {trainable:,}" in capsys.readouterr().out


@over_kinds
def test_the_base_model_is_the_one_that_was_given(tiny: Tiny) -> None:
    plain = tiny.model()
    weights = {name: value.clone() for name, value in plain.state_dict().items()}
    model = get_peft_model(plain, more_config(plain))
    assert model.get_base_model() is plain
    assert same({k.replace("base_layer.", ""): v for k, v in base_weights(plain).items()}, weights)


@over_kinds
def test_the_status_tells_each_layer(tiny: Tiny) -> None:
    status = two(tiny).get_model_status()
    assert (status.peft_types, status.active_adapters) == ({"default": "MORENAS", "second": "MORENAS"}, ["default"])
    assert status.num_adapter_layers == len(linears(tiny.model()))
    assert status.requires_grad == {"default": True, "second": False}


@over_kinds
def test_embeddings_can_be_given_in_place_of_tokens(tiny: Tiny) -> None:
    model = adapted(tiny)
    batch = tiny.batch()
    embedded = {"inputs_embeds": model.get_input_embeddings()(batch["input_ids"])}
    embedded["attention_mask"] = batch["attention_mask"]
    if tiny.family == "roberta":  # it makes positions of the token ids
        embedded["position_ids"] = batch["attention_mask"].cumsum(1) * batch["attention_mask"]
    assert model(**embedded).logits.isfinite().all()


def test_any_torch_module_can_be_adapted() -> None:
    net = nn.Sequential(nn.Linear(7, 10), nn.ReLU(), nn.Linear(10, 3))
    x, before = torch.randn(4, 7), [parameter.clone() for parameter in net.parameters()]
    model = get_peft_model(net, MoReConfig(target_modules=["0", "2"], nblocks=3, init_weights=False))
    out: Tensor = model(x)
    torch.testing.assert_close(model.merge_and_unload()(x), out)
    assert not torch.equal(next(net.parameters()), before[0])


# Choosing modules


@in_turn(tiny=MODELS, given=["ending", "regex", "excluded"])
def test_targets_are_pefts_own_words(tiny: Tiny, given: str) -> None:
    names = linears(tiny.model())
    ending = names[0].rpartition(".")[2]
    wanted = {name for name in names if name.rpartition(".")[2] == ending}
    choice: dict[str, dict[str, Any]] = {
        "ending": {"target_modules": [ending]},
        "regex": {"target_modules": rf".*\.{ending}"},
        "excluded": {"target_modules": names, "exclude_modules": sorted(set(names) - wanted)},
    }
    assert set(adapted(tiny, **choice[given]).targeted_module_names) == wanted


@over_kinds
def test_layers_can_be_chosen_by_their_number(tiny: Tiny) -> None:
    tiny = replace(tiny, layers=2)
    names = [name for name in linears(tiny.model()) if ".1." in name]
    endings = sorted({name.rpartition(".1.")[2] for name in names})
    assert set(adapted(tiny, target_modules=endings, layers_to_transform=[1]).targeted_module_names) == set(names)


@over_language_models
def test_without_targets_pefts_defaults_for_the_family_are_taken(tiny: Tiny) -> None:
    assert adapted(tiny, target_modules=None).targeted_module_names


def test_targets_that_nothing_matches_are_refused() -> None:
    with pytest.raises(ValueError, match="not found in the base model"):
        adapted(LLAMA, target_modules=["nothing_known"])


# Several adapters


@over_kinds
def test_the_active_adapter_alone_acts_and_learns(tiny: Tiny) -> None:
    model, alone = two(tiny), {"default": adapted(tiny, seed=1)}
    alone["second"] = adapted(tiny, seed=2, nblocks=4, blk_r=1)
    for name in ("default", "second", "default"):
        model.set_adapter(name)
        torch.testing.assert_close(logits(model), logits(alone[name]))
        assert {parameter.rpartition(".")[2] for parameter in learning(model)} == {name}


@over_kinds
def test_switching_changes_no_weight(tiny: Tiny) -> None:
    model = two(tiny)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for name in ("second", "default"):
        model.set_adapter(name)
        gradients(model, tiny)
    assert same(before, model.state_dict())


@over_kinds
def test_a_deleted_adapter_leaves_nothing_behind(tiny: Tiny) -> None:
    model = two(tiny)
    model.set_adapter("second")
    kept = logits(model)
    model.delete_adapter("default")
    assert torch.equal(logits(model), kept) and list(model.peft_config) == ["second"]
    layer = layer_of(model)
    for attribute in (*layer.adapter_layer_names, *layer.other_param_names):
        assert list(getattr(layer, attribute)) == ["second"], attribute


def test_deleting_the_active_adapter_makes_the_other_active() -> None:
    model = two(LLAMA)
    with pytest.warns(UserWarning, match="Setting active adapter to second"):
        model.delete_adapter("default")
    assert model.active_adapters == ["second"]
    torch.testing.assert_close(logits(model), logits(adapted(LLAMA, seed=2, nblocks=4, blk_r=1)))


def test_without_any_adapter_left_the_frozen_model_answers() -> None:
    model = adapted(LLAMA)
    model.delete_adapter("default")
    assert torch.equal(logits(model.base_model.model), logits(LLAMA.model()))
    assert torch.equal(logits(model.unload()), logits(LLAMA.model()))


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda model: model.delete_adapter("third"), "third does not exist"),
        (lambda model: model.set_adapter("third"), "third not found"),
        (lambda model: (model.merge_adapter(), model.delete_adapter("default")), "while they are merged"),
        (lambda model: model.add_adapter("default", more_config(LLAMA.model())), "already exists"),
        (lambda model: model.add_adapter("x", more_config(LLAMA.model(), target_modules=["none"])), "not found"),
    ],
)
def test_what_cannot_be_done_to_an_adapter_is_refused(act: Callable[[Any], Any], said: str) -> None:
    model = two(LLAMA)
    with pytest.raises(ValueError, match=said):
        act(model)


def test_a_second_adapter_with_biases_is_refused() -> None:
    with pytest.raises(ValueError, match="supports only 1 adapter with bias"):
        adapted(LLAMA, bias="all").add_adapter("second", more_config(LLAMA.model(), bias="all"))


@over_kinds
def test_adapters_on_different_modules_do_not_meet(tiny: Tiny) -> None:
    names = linears(tiny.model())
    model = adapted(tiny, seed=1, target_modules=names[::2])
    model.add_adapter("second", more_config(tiny.model(), 2, target_modules=names[1::2]))
    assert torch.equal(logits(model), logits(adapted(tiny, seed=1, target_modules=names[::2])))
    model.set_adapter("second")
    assert torch.equal(logits(model), logits(adapted(tiny, seed=2, target_modules=names[1::2])))


# Merging


@in_turn(tiny=MODELS, how=[(False, "cyclic"), (True, "monarch"), (True, "cyclic")])
def test_merged_logits_are_the_adapters_and_unmerging_is_exact(tiny: Tiny, how: tuple[bool, str]) -> None:
    safe, link = how
    model = adapted(tiny, nblocks=4, blk_r=3, link=link)
    expected, before = logits(model), base_weights(model)
    model.merge_adapter(safe_merge=safe)
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-4)
    assert not same(before, base_weights(model))
    model.unmerge_adapter()
    assert torch.equal(logits(model), expected) and same(before, base_weights(model))


@over_kinds
def test_merging_twice_is_merging_once(tiny: Tiny) -> None:
    model = adapted(tiny)
    model.merge_adapter()
    once = base_weights(model)
    with pytest.warns(UserWarning, match="already merged"):
        model.merge_adapter()
    assert same(once, base_weights(model))


@over_kinds
def test_unloading_gives_a_plain_model_with_or_without_the_adapter(tiny: Tiny) -> None:
    model = adapted(tiny)
    expected, names = logits(model), [name for name, _ in tiny.model().named_modules()]
    for plain, wanted in ((copy.deepcopy(model).unload(), logits(tiny.model())), (model.merge_and_unload(), expected)):
        assert type(plain) is type(tiny.model()) and [name for name, _ in plain.named_modules()] == names
        assert plain.state_dict().keys() == tiny.model().state_dict().keys()
        torch.testing.assert_close(logits(plain), wanted, atol=1e-5, rtol=1e-4)


def test_of_several_adapters_the_named_are_merged_on_unloading() -> None:
    model = two(LLAMA)
    model.base_model.set_adapter(["default", "second"])
    expected = logits(model)
    plain = model.merge_and_unload(adapter_names=["default", "second"])
    torch.testing.assert_close(logits(plain), expected, atol=1e-5, rtol=1e-4)


def test_switching_while_merged_unmerges_first() -> None:
    model = two(LLAMA)
    before = base_weights(model)
    model.merge_adapter()
    with pytest.warns(UserWarning, match="Unmerging the model first"):
        model.set_adapter("second")
    assert same(before, base_weights(model))


@over_language_models
def test_a_merged_model_writes_what_the_adapter_writes(tiny: Tiny) -> None:
    model = adapted(tiny, init_weights=False)
    prompt = tiny.batch()["input_ids"][:2, :4]

    def written(model: Any) -> Tensor:
        return torch.as_tensor(model.generate(input_ids=prompt, max_new_tokens=8, min_new_tokens=8, do_sample=False))

    adapter, plain = written(model), written(tiny.model())
    assert adapter.shape == (2, 12) and not torch.equal(adapter, plain)
    with model.disable_adapter():
        assert torch.equal(written(model), plain)
    assert torch.equal(written(model.merge_and_unload()), adapter)


# Training


@in_turn(tiny=MODELS, reentrant=[False, True, True])
def test_gradient_checkpointing_gives_the_same_gradients(tiny: Tiny, reentrant: bool) -> None:
    model = adapted(tiny, dropout=0.1).train()
    expected = gradients(model, tiny)
    base = model.get_base_model()
    base.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        base.enable_input_require_grads()
    assert base.is_gradient_checkpointing
    torch.testing.assert_close(gradients(model, tiny), expected)


@pairs(tiny=KINDS, dtype=[torch.bfloat16, torch.float16], upcast=[True, False])
def test_adapters_of_a_half_precision_base_are_float32_unless_told_otherwise(
    tiny: Tiny, dtype: torch.dtype, upcast: bool
) -> None:
    plain: Any = tiny.model()
    plain.to(dtype)
    model = get_peft_model(plain, more_config(plain), autocast_adapter_dtype=upcast)
    expected = torch.float32 if upcast else dtype
    grads = gradients(model.train(), tiny)
    assert {grad.dtype for grad in grads.values()} == {expected}
    assert all(grad.isfinite().all() for grad in grads.values())
    assert logits(model).dtype == dtype


@over_kinds
def test_under_autocast_half_precision_changes_little(tiny: Tiny) -> None:
    if tiny.family == "opt":  # the kinks of its ReLU double any rounding, of LoRA's gradients too
        tiny = replace(tiny, options=(*tiny.options, ("activation_function", "gelu")))
    model = adapted(tiny).train(False)
    exact, (full, expected) = gradients(model, tiny), (logits(model), logits(tiny.model()))
    with torch.autocast("cpu", torch.bfloat16):
        half, rounded = gradients(model, tiny), logits(model).float()
    assert float((rounded - full).norm()) < 0.1 * float((full - expected).norm())
    for name, grad in exact.items():
        assert half[name].dtype == torch.float32, name
        assert float((half[name] - grad).norm()) <= 0.1 * float(grad.norm()) + 1e-4, name


@over_kinds
def test_prepared_for_low_bit_training_it_learns_as_before(tiny: Tiny) -> None:
    expected = gradients(adapted(tiny).train(), tiny)
    plain: Any = tiny.model()
    plain.is_loaded_in_8bit = True  # as far as PEFT looks
    plain = prepare_model_for_kbit_training(plain, gradient_checkpointing_kwargs={"use_reentrant": True})
    assert plain.is_gradient_checkpointing and not learning(plain)
    model = get_peft_model(plain, more_config(plain)).train()
    torch.testing.assert_close(gradients(model, tiny), expected)


@over_kinds
def test_dropout_acts_in_training_alone(tiny: Tiny) -> None:
    model = adapted(tiny, dropout=0.5)
    assert torch.equal(logits(model), logits(adapted(tiny)))
    for module in model.modules():
        if isinstance(module, MoReLayer):
            module.train()
    assert not torch.equal(model(**tiny.batch()).logits, model(**tiny.batch()).logits)


@over_kinds
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_equal_and_independent(tiny: Tiny, copied: Callable[[Any], Any]) -> None:
    model = adapted(tiny)
    expected, other = logits(model), copied(model)
    assert torch.equal(logits(other), expected)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(logits(model), expected)


def test_a_copy_of_a_merged_model_can_be_unmerged() -> None:
    model = adapted(LLAMA)
    before = base_weights(model)
    model.merge_adapter()
    other = copy.deepcopy(model)
    other.unmerge_adapter()
    assert same(before, base_weights(other)) and not same(before, base_weights(model))


# What PEFT offers for LoRA alone


@pytest.mark.parametrize("method", ["forward", "generate"])
@pytest.mark.parametrize("task_type", [None, "CAUSAL_LM"])
def test_a_batch_with_an_adapter_for_each_row_is_refused_rather_than_ignored(method: str, task_type: Any) -> None:
    model, ids = adapted(LLAMA, task_type=task_type), LLAMA.batch()["input_ids"]
    with pytest.raises(InputError, match="adapter_names"):
        getattr(model, method)(input_ids=ids, adapter_names=["default", "__base__", "default"])


def test_a_weighted_adapter_is_refused_with_a_way_out() -> None:
    with pytest.raises(InputError, match=r"add_weighted_adapter.*set_adapter"):
        two(LLAMA).add_weighted_adapter(["default", "second"], [0.5, 0.5], "both")


def test_hotswapping_is_refused(tmp_path: Path) -> None:
    model = adapted(LLAMA)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Hotswapping only supports LORA but MORENAS was passed"):
        hotswap_adapter(model, str(tmp_path), "default")


def test_a_model_of_mixed_methods_is_refused() -> None:
    with pytest.raises(ValueError, match="'MORENAS' is not compatible with the `PeftMixedModel`"):
        PeftMixedModel(LLAMA.model(), more_config(LLAMA.model()))
