"""Guards: what they see, when they stop, and that an interruption changes neither."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from bilevel.estimators import HYPERGRADIENTS
from bilevel.quadratic import Quadratic
from torch import Tensor

from morenas.bilevel import (
    BilevelLoop,
    BilevelProblem,
    CurvatureGuard,
    EntropyGuard,
    Guard,
    Level,
    NoGuard,
    Schedule,
    StepReport,
)
from morenas.bilevel.guards import ITERATIONS, WINDOW

STEPS, WARMUP = 40, 3


class Bent:
    """An upper loss ``1/2 growth**n a' H a`` of upper step ``n``, with a known largest eigenvalue."""

    def __init__(self, growth: float, sign: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(0)
        basis = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
        self.hessian = sign * basis @ torch.diag(torch.tensor([2.0, 0.3, 0.2, 0.1, 0.0, -0.1]).double()) @ basis.T
        self.growth = growth
        self.arch = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
        self.weights = torch.ones(2, dtype=torch.float64, requires_grad=True)
        self.problem = BilevelProblem(
            Level("lower", lambda n: (self.weights**2).sum()),
            Level("upper", self.upper),
            [self.weights],
            [self.arch],
            self.sinking,
        )

    def sinking(self, step: int) -> Tensor:
        """A distribution that is surer the further the architecture has moved."""
        doubt = 0.5 * torch.exp(-10 * (self.arch.detach() - 1).norm())
        return torch.stack([doubt, 1 - doubt])[None]

    def upper(self, number: int) -> Tensor:
        flat = self.arch.flatten()
        return self.growth**number * (flat @ self.hessian @ flat) / 2

    def loop(self, guard: Guard | None, read_every: int = 1) -> BilevelLoop:
        optimizers = torch.optim.AdamW([self.weights], lr=0.01), torch.optim.Adam([self.arch], lr=0.01)
        schedule = Schedule(STEPS, WARMUP, 1)
        return BilevelLoop(self.problem, HYPERGRADIENTS["first_order"], *optimizers, schedule, read_every, guard)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_curvature_is_the_eigenvalue_of_largest_magnitude(sign: float) -> None:
    bent, guard = Bent(1.0, sign), CurvatureGuard(every=1, curvature=1.3)
    before = bent.arch.detach().clone()
    for number in range(4):
        assert not guard.look(bent.problem, number, number)
    assert guard.curvatures[-1] == pytest.approx(2.0, rel=1e-6)
    assert torch.equal(bent.arch, before) and bent.arch.grad is None


@pytest.mark.parametrize(("every", "growth", "stop"), [(1, 1.15, 5), (2, 1.08, 10), (1, 1.0, None), (1, 1.04, None)])
def test_rising_curvature_stops_and_steady_does_not(every: int, growth: float, stop: int | None) -> None:
    bent = Bent(growth)
    loop = bent.loop(CurvatureGuard(every, curvature=1.3))
    reports: list[StepReport] = []
    loop.run(reports.append)
    last = STEPS if stop is None else WARMUP + stop + 1
    assert loop.stopped == (stop is not None) and loop.step == len(reports) == last
    assert reports[-1].upper_loss is not None
    if stop is not None and loop.guard is not None:
        assert "curvature rose" in loop.guard.reason and stop == every * (2 * WINDOW - 1)


def test_a_look_costs_two_upper_gradients_an_iteration_and_only_every_so_often() -> None:
    bent, asked = Bent(1.0), list[int]()
    bent.problem = BilevelProblem(bent.problem.lower, Level("upper", noted(bent, asked)), [bent.weights], [bent.arch])
    bent.loop(CurvatureGuard(every=5, curvature=1.3)).run()
    counts = [asked.count(number) for number in range(STEPS - WARMUP)]
    assert counts == [1 + 2 * ITERATIONS * (number % 5 == 0) for number in range(STEPS - WARMUP)]


def test_a_curvature_is_measured_in_full_precision() -> None:
    bent, asked = Bent(1.0), list[int]()
    upper = Level("upper", bent.upper, full_precision=noted(bent, asked))
    problem = BilevelProblem(bent.problem.lower, upper, [bent.weights], [bent.arch])
    CurvatureGuard(every=1, curvature=1.3).look(problem, 4, 7)
    assert asked == [4] * 2 * ITERATIONS


def test_a_loss_without_curvature_is_none_to_stop_for() -> None:
    bent = Bent(0.0)
    loop = bent.loop(CurvatureGuard(every=1, curvature=1.3))
    loop.run()
    assert not loop.stopped and loop.step == STEPS


def test_entropy_below_its_floor_stops() -> None:
    quadratic = Quadratic.build(3, 4, 1.0, 0)
    quadratic.anchor = torch.tensor([20.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    guard = EntropyGuard(0.3)
    optimizers = torch.optim.SGD([quadratic.weights], lr=0.1), torch.optim.SGD([quadratic.arch], lr=0.1)
    problem = replace(
        quadratic.problem(), distribution=lambda step: torch.softmax(quadratic.arch.detach(), dim=0)[None]
    )
    loop = BilevelLoop(problem, HYPERGRADIENTS["first_order"], *optimizers, Schedule(STEPS, WARMUP, 2), guard=guard)
    entropies: list[float] = []
    loop.run(lambda report: entropies.append(guard.seen))
    assert loop.stopped and WARMUP < loop.step < STEPS
    assert entropies[-1] < 0.3 <= min(entropies[:-1]) and "0.3" in guard.reason


def noted(bent: Bent, asked: list[int]) -> Callable[[int], Tensor]:
    def upper(number: int) -> Tensor:
        asked.append(number)
        return bent.upper(number)

    return upper


def test_without_a_distribution_an_entropy_cannot_be_looked_at() -> None:
    quadratic = Quadratic.build(3, 4, 1.0, 0)
    with pytest.raises(ValueError, match="give the problem one"):
        EntropyGuard().look(quadratic.problem(), 0, 0)


def test_without_a_guard_or_with_one_that_never_stops_all_steps_are_taken() -> None:
    one, other = Bent(1.15), Bent(1.15)
    loops = one.loop(None), other.loop(NoGuard())
    for loop in loops:
        loop.run()
        assert loop.step == STEPS and not loop.stopped
    assert torch.equal(one.arch, other.arch)
    loops[1].load_state_tensors(loops[0].state_tensors())  # of a run that knew no guard


def guards() -> list[Guard]:
    return [CurvatureGuard(1, 1.3), EntropyGuard(0.3)]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("read_every", [1, 4])
def test_interrupted_and_resumed_at_any_step_it_stops_where_it_would_have(which: int, read_every: int) -> None:
    class Stop(Exception):
        pass

    whole = Bent(1.15)
    expected = whole.loop(guards()[which])
    expected.run()
    assert expected.stopped and WARMUP + 2 < expected.step < STEPS
    for at in range(1, expected.step + 1):

        def interrupt(report: StepReport, at: int = at) -> None:
            if report.step + 1 == at:
                raise Stop

        first = Bent(1.15)
        loop = first.loop(guards()[which], read_every)
        with pytest.raises(Stop):
            loop.run(interrupt)
        state = {key: value.clone() for key, value in loop.state_tensors().items()}
        second = Bent(1.15)
        resumed = second.loop(guards()[which], read_every)
        resumed.load_state_tensors(state)
        resumed.run()
        assert resumed.stopped and resumed.step == expected.step
        assert torch.equal(second.arch, whole.arch) and torch.equal(second.weights, whole.weights)
        assert resumed.guard is not None and expected.guard is not None
        assert resumed.guard.reason == expected.guard.reason
