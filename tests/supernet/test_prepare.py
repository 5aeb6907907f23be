"""A model is given back as it came."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from grids import in_turn
from tiny_models import FAMILIES, tiny_batch, tiny_classifier
from torch import nn

from morenas.models import target_linears
from morenas.models.heads import find_head
from morenas.space import SearchSpace, build_space
from morenas.supernet.prepare import prepared, trainable_head


def state(model: nn.Module) -> dict[str, Any]:
    """All that can be told from outside."""
    parameters = dict(model.named_parameters())
    return {
        "modules": {name: id(module) for name, module in model.named_modules()},
        "parameters": {name: id(parameter) for name, parameter in parameters.items()},
        "values": {name: value.detach().flatten().tolist() for name, value in model.state_dict().items()},
        "buffers": {name: value.detach().flatten().tolist() for name, value in model.named_buffers()},
        "required": {name: parameter.requires_grad for name, parameter in parameters.items()},
        "grads": {name: parameter.grad for name, parameter in parameters.items()},
        "training": {name: module.training for name, module in model.named_modules()},
        "hooks": [module._forward_hooks for module in model.modules()],
    }


def unusual(family: str) -> tuple[nn.Module, SearchSpace, list[str]]:
    """A classifier whose flags are no single value: parts in training mode, some parameters frozen."""
    model = tiny_classifier(family)
    space = build_space(target_linears(model, exclude=find_head(model)), [1, 2], [0, 1])
    model.train()
    next(model.children()).eval()
    for parameter in list(model.parameters())[::3]:
        parameter.requires_grad_(False)
    return model, space, list(find_head(model))


@in_turn(family=FAMILIES, failing=[False, True])
def test_a_model_is_given_back_exactly_also_after_an_exception(family: str, failing: bool) -> None:
    model, space, head = unusual(family)
    before = state(model)
    expected: AbstractContextManager[Any] = pytest.raises(KeyboardInterrupt) if failing else nullcontext()
    with expected, prepared(model, space, "per_nblocks", 0, head) as (supernet, head_weights):
        weights = [*supernet.weights().values(), *head_weights.values()]
        optimizer = torch.optim.AdamW(weights, lr=0.1)
        model.train()
        supernet.open()
        model(**tiny_batch()).loss.backward()
        optimizer.step()
        assert state(model)["values"] != before["values"]
        if failing:
            raise KeyboardInterrupt
    assert state(model) == before


def test_only_adapters_and_head_can_be_trained_meanwhile() -> None:
    model, space, head = unusual("bert")
    with prepared(model, space, "full", 0, head) as (supernet, head_weights):
        trainable = {id(p) for p in model.parameters() if p.requires_grad}
        assert trainable == {id(p) for p in (*supernet.weights().values(), *head_weights.values())}
        assert head_weights and all(name.startswith(tuple(head)) for name in head_weights)


def test_adapters_are_those_of_the_seed() -> None:
    model, space, head = unusual("bert")
    drawn = []
    for seed in (0, 0, 1):
        with prepared(model, space, "per_nblocks", seed, head) as (supernet, _):
            drawn.append(torch.cat([weight.detach().flatten() for weight in supernet.weights().values()]))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(
    ("sharing", "head", "error"), [("half", None, ValueError), ("full", ["no_such_head"], AttributeError)]
)
def test_what_is_refused_leaves_the_model_as_it_was(
    sharing: str, head: list[str] | None, error: type[Exception]
) -> None:
    model, space, known = unusual("bert")
    before = state(model)
    with pytest.raises(error), prepared(model, space, sharing, 0, head or known):
        pass
    assert state(model) == before


def test_running_statistics_and_gradients_are_those_of_before() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[0].weight.grad = torch.ones(4, 3)
    before = state(model)
    with trainable_head(model, ["2"]) as head:
        model(torch.randn(5, 3)).sum().backward()
        assert head["2.weight"].grad is not None
        assert state(model)["buffers"] != before["buffers"]
    after = state(model)
    assert after.pop("grads")["0.weight"] is before.pop("grads")["0.weight"]
    assert after == before and model[2].weight.grad is None
