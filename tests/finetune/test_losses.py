"""Losses are summed, and the first that is not finite is found with where it came from."""

from __future__ import annotations

import pytest
import torch

from morenas.finetune.losses import LossLog, MicroBatch, NonFiniteLoss


def at(number: int) -> MicroBatch:
    return MicroBatch(step=number // 2 + 1, number=number, learning_rate=0.5)


@pytest.mark.parametrize("eager", [True, False])
def test_draining_gives_the_sum_since_the_last_time(eager: bool) -> None:
    losses = LossLog(eager)
    for number in range(3):
        losses.add(at(number), torch.tensor(float(number)))
    assert losses.drain() == 3.0
    losses.add(at(3), torch.tensor(5.0))
    assert losses.drain() == 5.0
    assert losses.drain() == 0.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_an_eager_log_stops_at_once(bad: float) -> None:
    with pytest.raises(NonFiniteLoss):
        LossLog(eager=True).add(at(0), torch.tensor(bad))


def test_a_lazy_log_still_finds_the_first_one() -> None:
    losses = LossLog(eager=False)
    for number, value in enumerate([1.0, 2.0, float("inf"), float("nan"), 3.0]):
        losses.add(at(number), torch.tensor(value))
    with pytest.raises(NonFiniteLoss) as caught:
        losses.drain()
    assert caught.value.at == at(2)
    assert caught.value.value == float("inf")
