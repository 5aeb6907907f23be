"""Attached adapters change nothing before training, and exactly they and the head are trained."""

from __future__ import annotations

import contextlib
from itertools import cycle
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from tiny_mixtures import MIXTURES, MOVED, tiny_mixture
from tiny_models import FAMILIES, shallow, tiny_batch
from tiny_training import tiny_architecture
from torch import Tensor, nn

from morenas.base.errors import InputError
from morenas.finetune.attach import attach, check_attachable, count_parameters
from morenas.finetune.methods import (
    AdaLora,
    Boft,
    Dora,
    Full,
    GraLora,
    Head,
    Lora,
    Method,
    More,
    RankedLora,
    equal_parameter_lora,
    method_name,
)
from morenas.models import target_linears
from morenas.models.heads import find_head
from morenas.monarch import Link, to_dense

ADAPTERS = (Lora(rank=2), Dora(rank=2), AdaLora(rank=2), GraLora(rank=2), Boft())


def more(family: str) -> Method:
    return More().with_architecture(tiny_architecture(family))


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(**tiny_batch()).logits


def attached(method: Method, family: str = "bert", seed: int = 0) -> nn.Module:
    model = shallow(family)
    head = find_head(model)
    return attach(model, method, target_linears(model, exclude=head), head, seed, total_steps=100)


@pytest.mark.parametrize(
    ("method", "family"),
    [
        *((method, family) for method in ADAPTERS for family in ("bert", "gpt2")),  # with Linear, and with Conv1D
        *zip(cycle(ADAPTERS), (family for family in FAMILIES if family not in ("bert", "gpt2")), strict=False),
    ],
    ids=lambda value: value if isinstance(value, str) else method_name(value),
)
def test_adapters_start_as_the_identity(method: Method, family: str) -> None:
    if isinstance(method, Boft) and family == "gpt2":
        pytest.skip("PEFT's BOFT does not know Conv1D")
    torch.testing.assert_close(logits(attached(method, family)), logits(shallow(family)))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_architecture_starts_as_the_identity_with_its_parameters(family: str) -> None:
    model = attached(more(family), family)
    torch.testing.assert_close(logits(model), logits(shallow(family)), atol=0, rtol=0)
    assert count_parameters(model).adapter == tiny_architecture(family).num_parameters()


@pytest.mark.parametrize("link", ["cyclic", "monarch"])
def test_factors_and_head_of_a_search_are_inherited(link: str) -> None:
    architecture = tiny_architecture("bert", link)
    generator = torch.Generator().manual_seed(0)

    def factors(n: int, m: int, blocks: int, rank: int) -> tuple[Tensor, Tensor]:
        first = torch.randn(blocks, rank, -(-n // blocks), generator=generator)
        return first, torch.randn(blocks, -(-m // blocks), rank, generator=generator)

    found = {
        name: factors(shape.in_features, shape.out_features, shape.nblocks, shape.blk_r)
        for name, shape in architecture.modules.items()
    }
    head = {"classifier.weight": torch.randn(2, 16), "classifier.bias": torch.randn(2)}
    inherited = logits(attached(More().with_architecture(architecture, found, head)))
    by_hand = shallow("bert")
    by_hand.load_state_dict(head, strict=False)
    with torch.no_grad():
        for name, shape in architecture.modules.items():
            dense = to_dense(*found[name], Link(link), shape.in_features, shape.out_features)
            by_hand.get_parameter(f"{name}.weight").add_(dense)
    torch.testing.assert_close(inherited, logits(by_hand), atol=1e-4, rtol=1e-4)


def test_a_head_that_is_not_trained_here_is_refused() -> None:
    with pytest.raises(InputError, match=r"score\.weight"):
        attached(More().with_architecture(tiny_architecture(), head_state={"score.weight": torch.zeros(2, 16)}))


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_trains_the_adapters_and_the_head_and_nothing_else(family: str) -> None:
    model = attached(Lora(rank=2), family)
    head = find_head(shallow(family))
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == ("lora_" in name or ".modules_to_save.default." in name), name
    trained = {name.split(".modules_to_save.")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert {f"base_model.model.{name}" for name in head} <= trained


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_are_those_of_the_formula(family: str) -> None:
    plain = shallow(family)
    head = find_head(plain)
    of_head = sum(p.numel() for name in head for p in plain.get_submodule(name).parameters())
    targets = target_linears(plain, exclude=head)
    assert count_parameters(attached(Lora(rank=3), family)) == (3 * sum(map(sum, targets.values())), of_head)
    assert count_parameters(attached(GraLora(rank=4), family)) == (
        4 * sum(map(sum, targets.values())),
        of_head,
    )
    assert count_parameters(attached(Head(), family), head) == (0, of_head)
    everything = sum(p.numel() for p in plain.parameters())
    assert count_parameters(attached(Full(), family), head) == (everything - of_head, of_head)


def test_ranks_by_module_are_the_ranks_of_the_adapters() -> None:
    model = shallow("bert")
    targets = target_linears(model, exclude=("classifier",))
    ranks = equal_parameter_lora(700, targets)
    adapted = attach(model, RankedLora(rank=max(ranks.values()), ranks=ranks), targets, ("classifier",), 0, 10)
    found = {
        name.removeprefix("base_model.model."): (module.r["default"], module.scaling["default"])
        for name, module in adapted.named_modules()
        if isinstance(module, LoraLayer)
    }
    assert found == {name: (rank, 2.0) for name, rank in ranks.items()}
    assert count_parameters(adapted).adapter == sum(rank * sum(targets[name]) for name, rank in ranks.items())


@pytest.mark.parametrize("method", ADAPTERS, ids=method_name)
def test_the_start_is_a_function_of_the_seed_alone(method: Method) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = attached(method).state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert all(torch.equal(value, first[name]) for name, value in attached(method).state_dict().items())


def test_other_seeds_start_otherwise() -> None:
    one, two = (attached(Lora(), seed=seed).state_dict() for seed in (0, 1))
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_a_layer_that_a_method_cannot_adapt_is_refused() -> None:
    with pytest.raises(InputError, match=r"boft cannot be attached to GPT2.*Conv1D"):
        attached(Boft(), "gpt2")


@pytest.mark.parametrize("method", [*ADAPTERS, Full(), Head()], ids=method_name)
def test_gradients_reach_what_is_trained_and_nothing_else(method: Method) -> None:
    model = attached(method).train()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)  # away from zero factors, whose partners have no gradient
    model(**tiny_batch()).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize("method", ADAPTERS, ids=method_name)
def test_attaching_is_silent(method: Method, recwarn: pytest.WarningsRecorder) -> None:
    attached(method, "bert" if isinstance(method, Boft) else "gpt2")
    assert not [str(warning.message) for warning in recwarn]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", MOVED)
@pytest.mark.parametrize("method", [Lora(rank=2), RankedLora(rank=2, ranks={})], ids=["lora", "equal parameters"])
def test_a_lora_that_peft_puts_elsewhere_is_refused_with_the_way_out(name: str, method: Lora) -> None:
    model = tiny_mixture(name)
    targets = target_linears(model)
    if isinstance(method, RankedLora):
        method = RankedLora(rank=2, ranks=equal_parameter_lora(2272, targets))
    with pytest.raises(InputError, match=r"gate_proj.*leave them out \(space\.target_modules='\[(.*)\]'\)") as said:
        attach(model, method, targets, (), seed=0, total_steps=100)
    kept = str(said.value).split("='[")[1].split("]'")[0].split(",")
    again = tiny_mixture(name)
    attached = attach(again, Lora(rank=2), target_linears(again, kept), (), seed=0, total_steps=100)
    assert count_parameters(attached).adapter == sum(2 * (n + m) for n, m in target_linears(again, kept).values())


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_of_experts_takes_monarch_adapters_on_its_targets_alone(name: str) -> None:
    model = tiny_mixture(name)
    targets = target_linears(model)
    adapted: Any = attach(model, More(nblocks=2, blk_r=2), targets, (), seed=0, total_steps=100)
    assert set(adapted.targeted_module_names) == set(targets)


@pytest.mark.parametrize("name", [name for name in MIXTURES if name not in MOVED])
def test_a_lora_that_peft_leaves_where_it_was_meant_to_go_is_attached(name: str) -> None:
    model = tiny_mixture(name)
    targets = target_linears(model)
    adapted = attach(model, Lora(rank=2), targets, (), seed=0, total_steps=100)
    assert count_parameters(adapted).adapter == sum(2 * (n + m) for n, m in targets.values())


def test_a_rank_that_reaches_another_module_by_its_ending_is_refused() -> None:
    model = nn.ModuleDict({"dense": nn.Linear(4, 4), "inner": nn.ModuleDict({"dense": nn.Linear(4, 4)})})
    targets = {"dense": (4, 4), "inner.dense": (4, 4)}
    ranked: Any = RankedLora(rank=1, ranks={"dense": 2, "inner.dense": 1})
    with pytest.raises(InputError, match=r"inner\.dense 16 and not 8"):
        attach(model, ranked, targets, (), seed=0, total_steps=100)  # type: ignore[arg-type]


def test_asking_whether_a_method_can_be_attached_changes_nothing() -> None:
    model = tiny_mixture(MOVED[0])
    before, flags = weights(model), [parameter.requires_grad for parameter in model.parameters()]
    for method in (Lora(rank=1), More()):
        with contextlib.suppress(InputError):
            check_attachable(model, method, target_linears(model), ())
    after = weights(model)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert flags == [parameter.requires_grad for parameter in model.parameters()]
    assert not [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
