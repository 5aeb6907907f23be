from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from grids import in_turn
from peft import get_peft_model
from tiny_adapters import logits
from tiny_models import CLASSIFIERS, LANGUAGE_MODELS, Tiny, tiny_batch, tiny_classifier
from torch import Tensor, nn

from morenas.adapters import MoReConfig, set_factors
from morenas.models import target_linears
from morenas.models.heads import find_head
from morenas.space import Choice, build_space
from morenas.supernet import SHARINGS, Supernet

MODELS = [replace(tiny, layers=1) for tiny in (*CLASSIFIERS, *LANGUAGE_MODELS)]


def supernet_of(model: nn.Module, sharing: str = "full", nblocks: tuple[int, ...] = (1, 2, 4)) -> Supernet:
    """A supernet over all linear layers outside the head, ranks 0 to 2; trained, as far as random weights are."""
    space = build_space(target_linears(model, exclude=find_head(model)), list(nblocks), [0, 1, 2])
    supernet = Supernet(model, space, sharing)
    with torch.no_grad():
        for weight in supernet.weights().values():
            weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return supernet


@pytest.mark.parametrize("tiny", MODELS, ids=str)
def test_supernet_starts_as_the_model_and_leaves_it_as_it_came(tiny: Tiny) -> None:
    model = tiny.model()
    batch = tiny.batch()
    before, modules = model(**batch).logits, dict(model.named_modules())
    space = build_space(target_linears(model, exclude=find_head(model)), [1, 2, 4], [0, 1, 2])
    supernet = Supernet(model, space)
    supernet.mix(torch.full((len(space.groups), len(space.choices)), 1 / len(space.choices)))
    assert torch.equal(model(**batch).logits, before)
    supernet.remove()
    assert dict(model.named_modules()) == modules
    assert torch.equal(model(**batch).logits, before)


@in_turn(tiny=MODELS, sharing=["full", "per_nblocks"])
def test_a_one_hot_supernet_is_the_adapted_model_that_inherits_its_factors(tiny: Tiny, sharing: str) -> None:
    model = tiny.model()
    supernet = supernet_of(model, sharing, (1, 3, 4))
    space = supernet.space
    picks = [index % len(space.choices) for index in range(len(space.groups))]
    supernet.mix(torch.eye(len(space.choices))[picks])
    relaxed, shapes = logits(model), space.shapes(picks)
    factors = supernet.factors(shapes)
    supernet.remove()
    architecture = {name: {"nblocks": n, "blk_r": r} for name, (n, r) in shapes.items()}
    adapted = get_peft_model(model, MoReConfig(architecture=architecture))
    set_factors(adapted, factors)
    torch.testing.assert_close(logits(adapted), relaxed, atol=2e-6, rtol=1e-5)
    assert not torch.allclose(relaxed, logits(tiny.model()))


def gradients(supernet: Supernet, batch: dict[str, Tensor]) -> list[Tensor]:
    """In an even mixture of all choices: of its probabilities, and of every adapter weight."""
    choices = len(supernet.space.choices)
    probs = torch.full((len(supernet.space.groups), choices), 1 / choices).requires_grad_()
    supernet.mix(probs)
    inputs = [probs, *supernet.weights().values()]
    for value in inputs:
        value.grad = None
    supernet.model(**batch).loss.backward()  # torch.autograd.grad refuses reentrant checkpoints
    return [value.grad for value in inputs if value.grad is not None]


@pytest.mark.parametrize("tiny", MODELS, ids=str)
def test_gradients_reach_every_adapter_and_every_probability(tiny: Tiny) -> None:
    supernet = supernet_of(tiny.model())
    of_probs, *of_weights = gradients(supernet, tiny.batch())
    assert (of_probs[:, 1:] != 0).all()
    for name, grad in zip(supernet.weights(), of_weights, strict=True):
        assert (grad.abs().sum(dim=1) > 0).all(), name


@in_turn(tiny=MODELS, reentrant=[False, True])
def test_gradient_checkpointing_leaves_the_gradients_of_a_supernet(tiny: Tiny, reentrant: bool) -> None:
    model = tiny.model()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    supernet = supernet_of(model)
    model.train()
    torch.manual_seed(0)
    expected = gradients(supernet, tiny.batch())
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    assert model.is_gradient_checkpointing
    torch.manual_seed(0)
    for found, grad in zip(gradients(supernet, tiny.batch()), expected, strict=True):
        torch.testing.assert_close(found, grad)


def test_modules_of_a_group_share_one_choice() -> None:
    model = tiny_classifier("bert")
    space = build_space(target_linears(model, exclude=find_head(model)), [1, 2], [1, 2], granularity="type")
    supernet = Supernet(model, space)
    probs = torch.softmax(torch.arange(6.0 * len(space.choices)).view(6, -1).sin(), dim=1)
    supernet.mix(probs)
    for row, names in zip(probs, space.groups.values(), strict=True):
        for name in names:
            layer = supernet.layers[name]
            assert layer._link is not None
            assert torch.equal(layer._link, layer.link_tensor(row))


@pytest.mark.parametrize("sharing", SHARINGS)
def test_a_drawn_candidate_gives_the_values_and_gradients_of_a_one_hot_mixture(sharing: str) -> None:
    model = tiny_classifier("bert")
    space = build_space(target_linears(model, exclude=find_head(model)), [1, 2, 4], [0, 1, 2])
    supernet = Supernet(model, space, sharing)
    weights = list(supernet.weights().values())
    with torch.no_grad():
        for weight in weights:
            weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    probs = torch.eye(len(space.choices))[[index % len(space.choices) for index in range(len(space.groups))]]
    found = {}
    for kind, given in (("drawn", probs), ("mixed", probs.clone().requires_grad_())):
        supernet.mix(given)
        assert all((layer._drawn is None) == (kind == "mixed") for layer in supernet.layers.values())
        loss = model(**tiny_batch()).loss
        found[kind] = [loss, *torch.autograd.grad(loss, weights, materialize_grads=True, allow_unused=True)]
    for drawn, mixed in zip(found["drawn"], found["mixed"], strict=True):
        torch.testing.assert_close(drawn, mixed, atol=1e-6, rtol=1e-5)


def test_only_rows_that_are_one_hot_are_drawn() -> None:
    model = tiny_classifier("bert")
    space = build_space(target_linears(model, exclude=find_head(model)), [1, 2], [1, 2], granularity="type")
    supernet = Supernet(model, space)
    almost = torch.tensor([1.0, 1e-30, 0.0, 0.0])
    supernet.mix(torch.stack([torch.eye(4)[2], almost, torch.full((4,), 0.25), torch.eye(4)[0], almost, almost]))
    drawn = [supernet.layers[names[0]]._drawn for names in space.groups.values()]
    assert drawn == [space.choices[2], None, None, space.choices[0], None, None]


def test_factors_come_in_the_shapes_of_the_architecture() -> None:
    model = tiny_classifier("bert")
    space = build_space(target_linears(model, exclude=find_head(model)), [1, 2, 4], [1, 2])
    supernet = Supernet(model, space)
    name = next(iter(space.modules))
    ((first, second),) = supernet.factors({name: Choice(4, 2)}).values()
    assert (first.shape, second.shape) == ((4, 2, 4), (4, 4, 2))


@pytest.mark.parametrize("sharing", SHARINGS)
def test_drawing_an_architecture_is_mixing_its_one_hot_rows(sharing: str) -> None:
    model = tiny_classifier("bert")
    space = build_space(target_linears(model, exclude=find_head(model)), [1, 2, 4], [0, 1, 2], granularity="type")
    supernet = Supernet(model, space, sharing)
    with torch.no_grad():
        for weight in supernet.weights().values():
            weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    picks = [index % len(space.choices) for index in range(len(space.groups))]
    supernet.mix(torch.eye(len(space.choices))[picks])
    mixed = logits(model)
    supernet.open()
    opened = logits(model)
    supernet.draw(space.shapes(picks))
    assert torch.equal(logits(model), mixed) and not torch.allclose(opened, mixed)
    supernet.draw({})
    assert torch.equal(logits(model), logits(tiny_classifier("bert")))


def test_an_open_supernet_adds_to_every_weight_what_change_says() -> None:
    model = tiny_classifier("gpt2")
    space = build_space(target_linears(model, exclude=find_head(model)), [1, 2, 4], [0, 1, 2])
    supernet = Supernet(model, space, "per_nblocks")
    with torch.no_grad():
        for weight in supernet.weights().values():
            weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    supernet.open()
    found, changes = logits(model), {name: layer.change() for name, layer in supernet.layers.items()}
    supernet.remove()
    with torch.no_grad():
        for name, change in changes.items():
            weight = model.get_submodule(name).get_parameter("weight")
            weight.add_(change.T)  # of Conv1D
    torch.testing.assert_close(logits(model), found, atol=1e-5, rtol=1e-5)
