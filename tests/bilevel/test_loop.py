from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from bilevel.estimators import HYPERGRADIENTS
from bilevel.quadratic import Quadratic
from torch import Tensor

from morenas.bilevel import (
    BilevelLoop,
    BilevelProblem,
    Level,
    NonFiniteLoss,
    Schedule,
    Step,
    StepLosses,
    StepReport,
)
from morenas.bilevel.loop import ramp_and_cosine


def sgd(tensors: list[Tensor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(tensors, lr=rate)


def loop_on(
    quadratic: Quadratic, schedule: Schedule, name: str = "first_order", adam: bool = False, read_every: int = 1
) -> BilevelLoop:
    make = (lambda t, r: torch.optim.AdamW(t, lr=r)) if adam else sgd
    return BilevelLoop(
        quadratic.problem(),
        HYPERGRADIENTS[name],
        make([quadratic.weights], 0.1),
        make([quadratic.arch], 0.05),
        schedule,
        read_every,
    )


def test_one_step_equals_the_hand_computed_one() -> None:
    quadratic = Quadratic.build(4, 3, 1.0, 0)
    arch = quadratic.arch.detach() - 0.05 * quadratic.direct_gradient()
    gap = quadratic.weights.detach() - quadratic.coupling @ arch
    weights = quadratic.weights.detach() - 0.1 * quadratic.hessian @ gap
    loop_on(quadratic, Schedule(1, warmup=0, every=1, ramp=0, max_grad_norm=0)).run()
    torch.testing.assert_close(quadratic.arch.detach(), arch)
    torch.testing.assert_close(quadratic.weights.detach(), weights)


def test_first_order_converges_to_the_anchor_and_the_weights_to_their_optimum() -> None:
    quadratic = Quadratic.build(4, 3, 1.0, 1)
    loop_on(quadratic, Schedule(3000, warmup=0, every=1, max_grad_norm=math.inf)).run()
    torch.testing.assert_close(quadratic.arch.detach(), quadratic.anchor, atol=1e-3, rtol=0)
    torch.testing.assert_close(
        quadratic.weights.detach(), quadratic.coupling @ quadratic.arch.detach(), atol=1e-3, rtol=0
    )


def test_upper_steps_wait_for_the_warm_up_and_come_every_k() -> None:
    quadratic = Quadratic.build(3, 2, 1.0, 2)
    schedule = Schedule(20, warmup=7, every=4)
    reports: list[StepReport] = []
    loop_on(quadratic, schedule).run(reports.append)
    taken = [report.step for report in reports if report.upper_loss is not None]
    assert taken == [7, 11, 15, 19]
    assert schedule.upper_steps() == len(taken)
    assert [schedule.upper_number(step) for step in taken] == [0, 1, 2, 3]
    assert [schedule.upper_at(number) for number in range(4)] == taken


def test_every_micro_batch_counts() -> None:
    weights, arch = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    targets = torch.tensor([[1.0, 0.0], [0.0, 4.0], [3.0, 2.0], [8.0, 2.0]])
    level = Level("lower", lambda n: (targets[n] * weights).sum() + 0 * arch.sum(), accumulation=2)
    losses, (grad,) = level.gradients(1, [weights])
    torch.testing.assert_close(grad, targets[2:].mean(dim=0))
    assert losses.read() == 0.0


@pytest.mark.parametrize("stop", [1, 8, 13])
@pytest.mark.parametrize("name", sorted(HYPERGRADIENTS))
def test_a_resumed_loop_repeats_one_that_never_stopped(stop: int, name: str) -> None:
    schedule = Schedule(20, warmup=5, every=3)
    whole = Quadratic.build(4, 3, 1.0, 4)
    loop_on(whole, schedule, name, adam=True).run()

    class Stop(Exception):
        pass

    def interrupt(report: StepReport) -> None:
        if report.step + 1 == stop:
            raise Stop

    first = Quadratic.build(4, 3, 1.0, 4)
    interrupted = loop_on(first, schedule, name, adam=True)
    with pytest.raises(Stop):
        interrupted.run(interrupt)
    state = {key: value.clone() for key, value in interrupted.state_tensors().items()}
    second = Quadratic.build(4, 3, 1.0, 4)
    resumed = loop_on(second, schedule, name, adam=True)
    resumed.load_state_tensors(state)
    resumed.run()
    assert torch.equal(second.weights, whole.weights)
    assert torch.equal(second.arch, whole.arch)


def test_a_hypergradient_is_told_the_step_that_the_weights_take_next() -> None:
    """At the rate of that very step, from the state before it."""
    quadratic = Quadratic.build(4, 3, 1.0, 6)
    foreseen: list[Tensor] = []

    def looking_ahead(problem: BilevelProblem, step: Step) -> tuple[StepLosses, list[Tensor]]:
        grads = problem.gradients(problem.lower, step.lower, problem.weights)[1]
        foreseen.extend(step.weights.after(problem.weights, grads))
        return problem.gradients(problem.upper, step.upper, problem.arch)[0], [torch.zeros_like(quadratic.arch)]

    def compare(report: StepReport) -> None:
        torch.testing.assert_close(quadratic.weights.detach(), foreseen[report.step], rtol=1e-12, atol=1e-14)
        rate = 0.1 * schedule.lower_factor(report.step)
        assert report.lower_lr == rates[0].param_groups[0]["lr"] == pytest.approx(rate)

    rates = torch.optim.AdamW([quadratic.weights], lr=0.1), sgd([quadratic.arch], 0.05)
    schedule = Schedule(12, warmup=0, every=1, ramp=0.4, max_grad_norm=0.7)
    BilevelLoop(quadratic.problem(), looking_ahead, *rates, schedule).run(compare)
    assert len(foreseen) == 12


def test_state_of_another_problem_is_refused() -> None:
    schedule = Schedule(5, warmup=1, every=1)
    other = loop_on(Quadratic.build(5, 3, 1.0, 0), schedule).state_tensors()
    with pytest.raises(ValueError, match=r"lower parameter 0 .* another shape"):
        loop_on(Quadratic.build(4, 3, 1.0, 0), schedule).load_state_tensors(other)


@pytest.mark.parametrize(
    ("lower", "upper", "said"),
    [
        (["weights", "arch"], ["arch"], "lower optimizer holds 1 tensors that are not of its level and lacks 0"),
        (["weights"], ["weights", "arch"], "upper optimizer holds 1 tensors that are not of its level and lacks 0"),
        (["arch"], ["weights"], "lower optimizer holds 1 tensors that are not of its level and lacks 1"),
    ],
)
def test_an_optimizer_that_holds_the_other_level_is_refused(lower: list[str], upper: list[str], said: str) -> None:
    quadratic = Quadratic.build(3, 2, 1.0, 0)
    one, other = (sgd([getattr(quadratic, name) for name in names], 0.1) for names in (lower, upper))
    with pytest.raises(ValueError, match=said):
        BilevelLoop(quadratic.problem(), HYPERGRADIENTS["first_order"], one, other, Schedule(5, 1, 1))


def test_shared_and_frozen_tensors_are_refused() -> None:
    shared = torch.zeros(2, requires_grad=True)
    level = Level("lower", lambda n: shared.sum())
    with pytest.raises(ValueError, match="disjoint"):
        BilevelProblem(level, level, [shared], [shared])
    with pytest.raises(ValueError, match="does not require gradients"):
        BilevelProblem(level, level, [shared], [torch.zeros(2)])


def test_a_schedule_that_never_searches_is_refused() -> None:
    with pytest.raises(ValueError, match="no upper step"):
        loop_on(Quadratic.build(3, 2, 1.0, 0), Schedule(5, warmup=5, every=1))


@pytest.mark.parametrize(
    ("level", "name"),
    [
        *(("lower", name) for name in HYPERGRADIENTS),
        *(("upper", name) for name in HYPERGRADIENTS if name != "single_level"),
    ],
)
def test_a_loss_that_is_not_finite_stops_before_any_parameter_changes(level: str, name: str) -> None:
    quadratic = Quadratic.build(3, 2, 1.0, 0)
    good = {"lower": quadratic.lower_loss, "upper": quadratic.upper_loss}
    losses = {**good, level: lambda n: good[level](n) * (float("nan") if n == 2 else 1.0)}
    problem = BilevelProblem(
        Level("lower", losses["lower"]), Level("upper", losses["upper"]), [quadratic.weights], [quadratic.arch]
    )
    loop = BilevelLoop(
        problem,
        HYPERGRADIENTS[name],
        sgd([quadratic.weights], 0.1),
        sgd([quadratic.arch], 0.1),
        Schedule(6, 0, 1),
    )
    with pytest.raises(NonFiniteLoss, match=f"{level} loss is nan at step 2"):
        loop.run()
    assert loop.step == 2
    assert torch.isfinite(quadratic.weights).all()
    assert torch.isfinite(quadratic.arch).all()


@pytest.mark.parametrize("read_every", [2, 5, 100])
def test_reading_losses_rarely_changes_nothing_and_reports_every_step_in_order(read_every: int) -> None:
    schedule = Schedule(13, warmup=4, every=3)
    found: dict[int, tuple[Quadratic, list[StepReport]]] = {}
    for every in (1, read_every):
        found[every] = (Quadratic.build(4, 3, 1.0, 5), [])
        loop = loop_on(found[every][0], schedule, adam=True, read_every=every)
        loop.run(found[every][1].append)
    assert found[1][1] == found[read_every][1]
    assert [report.step for report in found[1][1]] == list(range(13))
    assert torch.equal(found[1][0].weights, found[read_every][0].weights)
    assert torch.equal(found[1][0].arch, found[read_every][0].arch)


def test_losses_are_read_before_the_architecture_moves_and_where_a_checkpoint_is_due() -> None:
    quadratic = Quadratic.build(3, 2, 1.0, 0)
    loop = loop_on(quadratic, Schedule(12, warmup=5, every=4), read_every=3)
    told: list[tuple[int, int, Tensor]] = []
    loop.run(lambda report: told.append((report.step, loop.step, quadratic.arch.detach().clone())))
    assert [(step, at) for step, at, _ in told] == [
        (0, 3), (1, 3), (2, 3), (3, 5), (4, 5), (5, 6), (6, 9), (7, 9), (8, 9), (9, 12), (10, 12), (11, 12)
    ]  # fmt: skip
    arch = [arch for _, _, arch in told]
    assert torch.equal(arch[4], arch[0]) and not torch.equal(arch[5], arch[4])


def test_a_loss_that_is_not_finite_is_found_at_the_next_reading_and_named() -> None:
    quadratic = Quadratic.build(3, 2, 1.0, 0)
    lower = Level("lower", lambda n: quadratic.lower_loss(n) * (float("inf") if n == 4 else 1.0), accumulation=3)
    problem = BilevelProblem(lower, Level("upper", quadratic.upper_loss), [quadratic.weights], [quadratic.arch])
    loop = BilevelLoop(
        problem,
        HYPERGRADIENTS["first_order"],
        sgd([quadratic.weights], 0.1),
        sgd([quadratic.arch], 0.1),
        Schedule(8, warmup=7, every=1),
        read_every=4,
    )
    reports: list[StepReport] = []
    with pytest.raises(NonFiniteLoss, match="lower loss is inf at step 1, micro-batch 1"):
        loop.run(reports.append)
    assert (loop.step, [report.step for report in reports]) == (4, [0])


def test_an_upper_loss_that_is_not_finite_never_reaches_the_architecture_however_rarely_losses_are_read() -> None:
    quadratic = Quadratic.build(3, 2, 1.0, 0)
    upper = Level("upper", lambda n: quadratic.upper_loss(n) * (float("nan") if n == 1 else 1.0))
    problem = BilevelProblem(Level("lower", quadratic.lower_loss), upper, [quadratic.weights], [quadratic.arch])
    rates = sgd([quadratic.weights], 0.1), sgd([quadratic.arch], 0.1)
    loop = BilevelLoop(problem, HYPERGRADIENTS["first_order"], *rates, Schedule(8, 0, 3), read_every=100)
    with pytest.raises(NonFiniteLoss, match="upper loss is nan at step 1"):
        loop.run()
    assert torch.isfinite(quadratic.arch).all()


def test_a_step_waits_for_no_device_until_its_losses_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, int, int]] = []
    loop = loop_on(Quadratic.build(3, 2, 1.0, 0), Schedule(9, warmup=6, every=5), read_every=4)
    original = StepLosses.read

    def noting(losses: StepLosses) -> float:
        read.append((losses.level, losses.step, loop.step))
        return original(losses)

    monkeypatch.setattr(StepLosses, "read", noting)
    loop.run()
    early = [("lower", step, 4) for step in range(4)] + [("lower", step, 6) for step in (4, 5)]
    late = [("lower", step, 8) for step in (6, 7)] + [("lower", 8, 9)]
    assert [one for one in read if one[0] == "lower"] == early + late
    assert {one[2] for one in read if one[0] == "upper"} == {6, 8}  # before it moved anything, and for the report


@pytest.mark.parametrize("name", sorted(HYPERGRADIENTS))
def test_a_loss_that_reaches_nothing_that_its_step_moves_has_gradients_of_zero(name: str) -> None:
    weights, arch = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    lower, upper = Level("lower", lambda n: arch.sum()), Level("upper", lambda n: weights.sum())
    problem = BilevelProblem(lower, upper, [weights], [arch])
    loop = BilevelLoop(problem, HYPERGRADIENTS[name], sgd([weights], 0.1), sgd([arch], 0.1), Schedule(2, 0, 1))
    loop.run()
    assert torch.equal(weights, torch.ones(2))
    assert torch.equal(arch, torch.ones(3)) == (name not in ("single_level", "mixed_level"))


@pytest.mark.parametrize("name", sorted(HYPERGRADIENTS))
def test_only_what_a_step_moves_requires_gradients_meanwhile(name: str) -> None:
    quadratic = Quadratic.build(3, 2, 1.0, 0)
    seen: list[tuple[str, bool, bool]] = []

    def watched(level: str, loss: Callable[[int], Tensor]) -> Level:
        def call(number: int) -> Tensor:
            seen.append((level, quadratic.weights.requires_grad, quadratic.arch.requires_grad))
            return loss(number)

        return Level(level, call)

    problem = BilevelProblem(
        watched("lower", quadratic.lower_loss),
        watched("upper", quadratic.upper_loss),
        [quadratic.weights],
        [quadratic.arch],
    )
    rates = sgd([quadratic.weights], 0.1), sgd([quadratic.arch], 0.1)
    BilevelLoop(problem, HYPERGRADIENTS[name], *rates, Schedule(1, warmup=0, every=1)).run()
    both, of_arch, of_weights = ("upper", True, True), ("lower", False, True), ("lower", True, False)
    expected = {
        "first_order": [("upper", False, True)],
        "single_level": [of_arch],
        "mixed_level": [of_arch, ("upper", False, True)],
        "unrolled": [of_weights, both, *2 * [of_arch]],
        "neumann": [both, *14 * [of_weights], *2 * [of_arch]],
    }
    assert seen == [*expected[name], of_weights]
    assert quadratic.weights.requires_grad and quadratic.arch.requires_grad


def test_learning_rate_rises_then_falls_to_zero_and_progress_covers_the_unit_interval() -> None:
    schedule = Schedule(100, warmup=20, every=2, ramp=0.1)
    factors = [schedule.lower_factor(step) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert all(later <= earlier for earlier, later in itertools.pairwise(factors[9:]))
    assert factors[-1] < 1e-3
    assert [schedule.progress(step) for step in (0, 20, 99)] == [0.0, 0.0, 1.0]


def test_a_warm_up_with_a_schedule_of_its_own_has_a_ramp_and_a_cosine_twice() -> None:
    schedule = Schedule(100, warmup=60, every=2, ramp=0.1, restart=True)
    factors = [schedule.lower_factor(step) for step in range(100)]
    for start, end, rising in ((0, 60, 6), (60, 100, 4)):
        part = factors[start:end]
        assert part[:rising] == pytest.approx([(step + 1) / rising for step in range(rising)])
        assert all(later <= earlier for earlier, later in itertools.pairwise(part[rising - 1 :]))
        assert part[-1] < 5e-3
    alone = Schedule(60, warmup=60, every=1, ramp=0.1, restart=True)
    assert [alone.lower_factor(step) for step in range(60)] == factors[:60]


def test_a_warm_up_with_a_schedule_of_its_own_may_be_all_there_is() -> None:
    quadratic = Quadratic.build(3, 2, 1.0, 0)
    before = quadratic.arch.detach().clone()
    reports: list[StepReport] = []
    loop_on(quadratic, Schedule(7, warmup=7, every=1, restart=True)).run(reports.append)
    assert [report.upper_loss for report in reports] == [None] * 7
    assert torch.equal(quadratic.arch, before)


@pytest.mark.parametrize("read_every", [1, 4, 100])
@pytest.mark.parametrize("until", [[0, 5], [5, 5, 9], [3, 20], [20]])
def test_a_loop_that_pauses_reports_what_it_took_and_goes_on_as_if_it_had_not(
    until: list[int], read_every: int
) -> None:
    schedule = Schedule(20, warmup=5, every=3, restart=True)
    whole, parts = Quadratic.build(4, 3, 1.0, 4), Quadratic.build(4, 3, 1.0, 4)
    expected: list[StepReport] = []
    loop_on(whole, schedule, adam=True).run(expected.append)
    found: list[StepReport] = []
    loop = loop_on(parts, schedule, adam=True, read_every=read_every)
    for step in until:
        loop.run(found.append, until=step)
        assert loop.step == len(found) == step
    loop.run(found.append)
    assert found == expected
    assert torch.equal(parts.weights, whole.weights) and torch.equal(parts.arch, whole.arch)


@pytest.mark.parametrize("pause", [5, 9])
def test_resumed_where_it_paused_a_loop_repeats_one_that_never_did(pause: int) -> None:
    schedule = Schedule(20, warmup=5, every=3, restart=True)
    whole, first, second = (Quadratic.build(4, 3, 1.0, 4) for _ in range(3))
    loop_on(whole, schedule, adam=True).run()
    paused = loop_on(first, schedule, adam=True)
    paused.run(until=pause)
    resumed = loop_on(second, schedule, adam=True)
    resumed.load_state_tensors({key: value.clone() for key, value in paused.state_tensors().items()})
    resumed.run(until=pause)
    resumed.run()
    assert torch.equal(second.weights, whole.weights) and torch.equal(second.arch, whole.arch)


def test_the_rate_rises_and_falls_to_zero() -> None:
    rates = [ramp_and_cosine(step, 100, 0.06) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 6) and max(rates) == 1 and rates[-1] < 1e-3
    assert rates[6:] == sorted(rates[6:], reverse=True)
    assert ramp_and_cosine(0, 1, 0.06) == 1
