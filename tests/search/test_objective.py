"""The losses of both levels: told what the supernet computes, and each a function of its number."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from morenas.bilevel import Schedule
from morenas.search.data import SearchData
from morenas.search.objective import Objective
from morenas.search.settings import SearchSettings

SCHEDULE = Schedule(steps=20, warmup=6, every=3)


class Numbered:
    """Batches that hold their number."""

    def __getitem__(self, number: int) -> Mapping[str, Tensor]:
        return {"number": torch.tensor([float(number)])}


class Dropped(nn.Module):
    """A model whose loss is the batch's number, times dropout in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(64))
        self.dropout = nn.Dropout(0.5)

    def forward(self, number: Tensor) -> Tensor:
        return self.dropout(self.weight).mean() * number


def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    result: Tensor = model(batch["number"]).sum()
    return result


def objective(model: nn.Module, micro: int = 1) -> Objective:
    settings = SearchSettings(steps=20, warmup=6, every=3, start="level", gradient_accumulation=micro, seed=3)
    data = SearchData(Numbered(), Numbered())
    return Objective(model, loss, data, SCHEDULE, settings, torch.device("cpu"))


@pytest.mark.parametrize("micro", [1, 2])
def test_what_is_to_be_computed_is_told_with_the_weight_step_before_every_pass(micro: int) -> None:
    losses, told = objective(Dropped(), micro), list[tuple[int, int]]()
    losses.enter(lambda step, generator: told.append((step, generator.initial_seed())))
    lower, upper = losses.lower(), losses.upper()
    for number in range(4 * micro):
        lower.loss(number)
    for number in range(3 * micro):
        upper.loss(number)
    steps = [step for step, _ in told]
    assert steps == [n for n in range(4) for _ in range(micro)] + [n for n in (6, 9, 12) for _ in range(micro)]
    assert len({seed for _, seed in told}) == len(told)
    later = list[str]()
    losses.enter(lambda step, generator: later.append("later"))
    lower.loss(0)
    assert later == ["later"] and len(told) == 7 * micro


def test_a_loss_before_any_phase_was_entered_is_a_mistake() -> None:
    with pytest.raises(RuntimeError, match="call it before any loss"):
        objective(Dropped()).lower().loss(0)


def test_a_pass_is_a_function_of_its_number_and_a_later_beginning_goes_on_where_the_search_ended() -> None:
    losses = objective(Dropped())
    losses.enter(lambda step, generator: None)
    lower, after = losses.lower(), losses.lower(begin=20)
    first = [float(lower.loss(number).detach()) for number in range(1, 4)]
    torch.manual_seed(9)
    assert first == [float(lower.loss(number).detach()) for number in range(1, 4)]
    assert len({round(loss / number, 6) for number, loss in enumerate(first, 1)}) == 3  # dropout differs
    assert float(after.loss(2)) == float(lower.loss(22))


def test_weights_are_trained_with_dropout_and_the_architecture_is_judged_without() -> None:
    losses = objective(Dropped())
    losses.enter(lambda step, generator: None)
    assert float(losses.upper().loss(5)) == float(losses.evaluate({"number": torch.tensor([5.0])})) == 5.0
    assert float(losses.lower().loss(5)) != 5.0


def test_a_probe_in_full_precision_is_the_same_pass_without_autocast() -> None:
    seen: list[tuple[bool, int]] = []

    def noting(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        seen.append((torch.is_autocast_enabled("cpu"), torch.initial_seed()))
        return loss(model, batch)

    settings = SearchSettings(steps=20, warmup=6, start="level", bf16=True)
    made = Objective(Dropped(), noting, SearchData(Numbered(), Numbered()), SCHEDULE, settings, torch.device("cpu"))
    made.enter(lambda step, generator: None)
    level = made.lower()
    level.loss(4)
    assert level.full_precision is not None
    level.full_precision(4)
    assert [autocast for autocast, _ in seen] == [True, False] and seen[0][1] == seen[1][1]
