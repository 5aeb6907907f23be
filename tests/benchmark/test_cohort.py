"""A cohort: members side by side in one model, each as if it were alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import get_peft_model
from tiny_models import FAMILIES, tiny_batch, tiny_classifier
from torch import Tensor, nn

from morenas.adapters import MoReConfig, MoReLayer, set_factors
from morenas.benchmark.cohort import RAMP, Cohort, adamw, train
from morenas.bilevel.loop import ramp_and_cosine
from morenas.models import target_linears
from morenas.models.heads import find_head
from morenas.space import Choice

CHOICES = (Choice(1, 0), Choice(1, 2), Choice(3, 1), Choice(4, 2), Choice(2, 1))
BATCH_FREE = [family for family in FAMILIES if family != "deberta-v2"]
"""Families whose linear layers all see a batch; DeBERTa's also see relative positions."""
STEPS, RATE, CLIP = 6, 3e-2, 0.5


def losses(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    return F.cross_entropy(model(**inputs).logits, batch["labels"], reduction="none")


def batches() -> list[dict[str, Tensor]]:
    return [tiny_batch(size=4, seed=number) for number in range(STEPS)]


def architectures(modules: Mapping[str, Any], members: int = 4) -> list[dict[str, Choice]]:
    """Different choices for every member and module, "none" among them; the last member has no adapter at all."""
    drawn = [
        {name: CHOICES[(member + index) % len(CHOICES)] for index, name in enumerate(modules)}
        for member in range(members - 1)
    ]
    return [*drawn, {}]


def parts(family: str) -> tuple[nn.Module, dict[str, tuple[int, int]], tuple[str, ...]]:
    model = tiny_classifier(family).double()
    head = find_head(model)
    return model, target_linears(model, exclude=head), head


def record(cohort: Cohort, data: Sequence[Mapping[str, Tensor]] | None = None) -> Tensor:
    """Train; losses of every step and member, shape ``(steps, members)``."""
    seen: list[Tensor] = []

    def noting(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        values = losses(model, batch)
        seen.append(values.detach().view(cohort.size, -1).mean(1))
        return values

    train(cohort, noting, data or batches(), STEPS, RATE, max_grad_norm=CLIP)
    return torch.stack(seen)


def train_alone(
    model: nn.Module, head: Sequence[str], shapes: Mapping[str, Choice], start: Mapping[str, tuple[Tensor, Tensor]]
) -> tuple[list[float], dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """Train one architecture as the discrete PEFT adapter, by torch alone: losses, blocks and head."""
    adapted = {name: {"nblocks": n, "blk_r": r} for name, (n, r) in shapes.items() if r}
    if adapted:
        peft = get_peft_model(model, MoReConfig(architecture=adapted)).double()
        set_factors(peft, start)
    for name, parameter in model.named_parameters():
        inside = any(name.startswith(f"{module}.") for module in head)
        parameter.requires_grad_("morenas" in name or inside)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, weight_decay=1e-3)
    seen = []
    for step, batch in enumerate(batches()):
        optimizer.param_groups[0]["lr"] = RATE * ramp_and_cosine(step, STEPS, RAMP)
        loss = losses(model, batch).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()
        seen.append(loss.item())
    blocks = {
        name: (module.morenas_first["default"].detach(), module.morenas_second["default"].detach())
        for name, module in model.named_modules()
        if isinstance(module, MoReLayer)
    }
    heads = {
        name: value.detach()
        for name, value in model.named_parameters()
        if any(name.startswith(f"{module}.") for module in head)
    }
    return seen, blocks, heads


@pytest.mark.parametrize("family", BATCH_FREE)
def test_a_member_is_trained_as_the_discrete_adapter_is_alone(family: str) -> None:
    model, modules, head = parts(family)
    members = architectures(modules)
    with Cohort(model, modules, members, head) as cohort:
        starts = [cohort.factors(member) for member in range(cohort.size)]
        seen = record(cohort)
        found = [(cohort.factors(member), cohort.head(member)) for member in range(cohort.size)]
    for member, shapes in enumerate(members):
        alone, _, _ = parts(family)
        expected, blocks, heads = train_alone(alone, head, shapes, starts[member])
        assert seen[:, member].tolist() == pytest.approx(expected, abs=1e-9)
        torch.testing.assert_close(found[member], (blocks, heads), atol=1e-8, rtol=1e-7)
    assert not torch.allclose(seen[0], seen[-1])


def test_members_do_not_influence_each_other() -> None:
    model, modules, head = parts("bert")
    members = architectures(modules)
    with Cohort(model, modules, members, head) as cohort:
        seen = record(cohort)
    for member in range(len(members)):
        with Cohort(model, modules, [members[member]], head) as cohort:
            torch.testing.assert_close(record(cohort)[:, 0], seen[:, member], atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_given_back_as_it_came(family: str) -> None:
    model = tiny_classifier(family)
    batch = tiny_batch()
    before, named = model(**batch).logits, dict(model.named_modules())
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    head = find_head(model)
    modules = target_linears(model, exclude=head)
    with Cohort(model, modules, architectures(modules)[:1], head) as cohort:
        train(cohort, losses, batches(), 2, RATE)
        assert not torch.equal(model(**batch).logits, before)
    assert dict(model.named_modules()) == named
    assert torch.equal(model(**batch).logits, before)
    torch.testing.assert_close(dict(model.state_dict()), weights, atol=0, rtol=0)


def test_a_failed_training_leaves_the_model_as_it_came() -> None:
    model, modules, head = parts("bert")
    named = dict(model.named_modules())
    with pytest.raises(ZeroDivisionError), Cohort(model, modules, architectures(modules), head):
        raise ZeroDivisionError
    assert dict(model.named_modules()) == named


def test_a_head_that_cannot_be_copied_is_refused_before_the_model_is_touched() -> None:
    model, modules, _ = parts("bert")
    named = dict(model.named_modules())
    with pytest.raises(ValueError, match="LayerNorm"):
        Cohort(model, modules, architectures(modules), ["bert.embeddings.LayerNorm"])
    assert dict(model.named_modules()) == named


def test_an_input_without_the_batch_is_refused() -> None:
    model, modules, head = parts("deberta-v2")
    with (
        pytest.raises(ValueError, match="do not lie along the first dimension"),
        Cohort(model, modules, architectures(modules, members=3), head) as cohort,
    ):
        losses(model, cohort.repeat(tiny_batch()))


def test_blocks_come_back_bit_for_bit_where_nothing_divides() -> None:
    """Feature counts that block counts do not divide are padded, and what is padded is never trained."""
    model = nn.Sequential(nn.Linear(7, 10), nn.Linear(10, 5))
    modules = {"0": (7, 10), "1": (10, 5)}
    generator = torch.Generator().manual_seed(0)
    shapes = [Choice(3, 2), Choice(2, 3), Choice(4, 1)]
    starts = []
    for shape in shapes:
        blocks = {}
        for name, (n, m) in modules.items():
            width, height = -(-n // shape.nblocks), -(-m // shape.nblocks)
            first = torch.randn(shape.nblocks, shape.blk_r, width, generator=generator)
            second = torch.randn(shape.nblocks, height, shape.blk_r, generator=generator)
            padded_in = torch.arange(shape.nblocks * width).view(shape.nblocks, 1, width) >= n
            padded_out = torch.arange(shape.nblocks * height).view(height, shape.nblocks).T.unsqueeze(2) >= m
            blocks[name] = (first.masked_fill(padded_in, 0), second.masked_fill(padded_out, 0))
        starts.append(blocks)
    members = [dict.fromkeys(modules, shape) for shape in shapes]
    with Cohort(model, modules, members, starts=starts) as cohort:
        for member, start in enumerate(starts):
            torch.testing.assert_close(cohort.factors(member), start, atol=0, rtol=0)


def test_numbers_outside_of_the_blocks_stay_zero_and_no_module_is_wrapped_in_vain() -> None:
    model, modules, head = parts("bert")
    name, idle = list(modules)[:2]
    with Cohort(model, modules, [{name: Choice(4, 2)}, {name: Choice(1, 1)}, {}], head) as cohort:
        original = model.get_submodule(idle)
        record(cohort)
        assert isinstance(original, nn.Linear)
        a, b = cohort.params[:2]
        assert (a[0] != 0).sum() == 2 * modules[name][0] and (b[0] != 0).sum() == 2 * modules[name][1]
        assert (a[1] != 0).sum() == modules[name][0] and (b[1] != 0).sum() == modules[name][1]
        assert not a[2].any() and not b[2].any()
        assert cohort.factors(2) == {}


def test_a_model_in_half_precision_trains_adapters_and_heads_in_single() -> None:
    model: nn.Module = tiny_classifier("bert").bfloat16()
    head = find_head(model)
    modules = target_linears(model, exclude=head)
    with Cohort(model, modules, architectures(modules), head) as cohort:
        assert {parameter.dtype for parameter in cohort.params} == {torch.float32}
        assert model(**cohort.repeat(tiny_batch())).logits.dtype == torch.bfloat16
        last = train(cohort, lambda m, b: losses(m, b).float(), batches(), STEPS, RATE)
        assert torch.isfinite(last).all()
        assert all(pair[0].dtype == torch.float32 for pair in cohort.factors(0).values())


def test_autocast_computes_in_half_precision() -> None:
    model = tiny_classifier("bert")
    head = find_head(model)
    modules = target_linears(model, exclude=head)
    with Cohort(model, modules, architectures(modules), head) as cohort:
        batch = cohort.repeat(tiny_batch())
        exact = losses(model, batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = losses(model, batch)
    assert not torch.equal(rough.float(), exact)
    torch.testing.assert_close(rough.float(), exact, atol=0.05, rtol=0.05)


def test_a_plain_network_is_trained_without_a_head() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 4)).requires_grad_(False)
    x, y = torch.randn(32, 8), torch.randn(32, 4)

    def squared(network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return (network(batch["x"]) - batch["y"]).square().mean(1)

    data = [{"x": x, "y": y}] * 60
    members = [{"0": Choice(2, 2), "2": Choice(1, 1)}, {"2": Choice(4, 1)}, {}]
    with Cohort(model, {"0": (8, 12), "2": (12, 4)}, members) as cohort:
        first, last = train(cohort, squared, data, 1, 1e-2), train(cohort, squared, data, 60, 1e-2)
    assert last[0] < first[0] and last[1] < first[1]
    assert last[2] == first[2]


def test_a_cohort_with_nothing_to_train_is_measured_all_the_same() -> None:
    model, modules, _ = parts("bert")
    with Cohort(model, modules, [{}, {}]) as cohort:
        last = train(cohort, losses, batches(), 2, RATE)
        assert last[0] == last[1] == losses(model, batches()[1]).mean()


def test_training_in_two_parts_is_training_at_once() -> None:
    model, modules, head = parts("bert")
    members = architectures(modules)
    done: list[int] = []
    with Cohort(model, modules, members, head) as cohort:
        whole = train(cohort, losses, batches(), STEPS, RATE, after=done.append)
    with Cohort(model, modules, members, head) as cohort:
        optimizer = adamw(cohort)
        train(cohort, losses, batches(), 2, RATE, total=STEPS, optimizer=optimizer)
        parted = train(cohort, losses, batches(), STEPS, RATE, start=2, optimizer=optimizer)
    torch.testing.assert_close(parted, whole, atol=0, rtol=0)
    assert done == list(range(1, STEPS + 1))


def test_the_seed_decides_the_start_whatever_the_other_members_are() -> None:
    model, modules, head = parts("bert")
    members = architectures(modules)

    def start(chosen: Sequence[Mapping[str, Choice]], seed: int) -> dict[str, tuple[Tensor, Tensor]]:
        with Cohort(model, modules, chosen, head, seed) as cohort:
            return cohort.factors(0)

    torch.testing.assert_close(start(members, 0), start(members[:1], 0), atol=0, rtol=0)
    assert any(
        not torch.equal(a, b)
        for (a, _), (b, _) in zip(start(members, 0).values(), start(members, 1).values(), strict=True)
    )
