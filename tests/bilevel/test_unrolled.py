"""The unrolled hypergradient: closed forms, the step that is really taken, and what goes wrong without it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from bilevel.estimators import HYPERGRADIENTS
from bilevel.quadratic import SETTINGS, Quadratic
from bilevel.tiny_search import CLIP, TinySearch, cosine, error
from torch import Tensor

from morenas.bilevel import BilevelProblem, CentralDifference, Step, Unrolled, WeightStep, exact

WAYS = {"unrolled": HYPERGRADIENTS["unrolled"], "exact": exact}
SEARCHES: list[dict[str, Any]] = [
    {},
    {"accumulation": 2},
    {"relaxation": "gumbel", "sharing": "per_nblocks"},
    {"family": "gpt2"},
    {"family": "deberta-v2"},
]


def correction(problem: BilevelProblem, step: Step, hypergradient: Unrolled) -> list[Tensor]:
    """What the hypergradient has beyond the derivative of the upper loss at the weights ahead."""
    seen: list[list[Tensor]] = []

    def kept(problem: BilevelProblem, step: int, direction: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
        seen.append(hypergradient.second_derivative(problem, step, direction, inputs))
        return seen[-1]

    Unrolled(kept)(problem, step)
    return seen[0]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rate", [0.01, 0.3])
@pytest.mark.parametrize(("n", "m", "rho", "seed"), SETTINGS)
def test_through_a_step_of_sgd_it_is_the_closed_form(
    n: int, m: int, rho: float, seed: int, rate: float, way: str
) -> None:
    quadratic = Quadratic.build(n, m, rho, seed)
    step = quadratic.step(torch.optim.SGD([quadratic.weights], lr=rate))
    losses, (gradient,) = WAYS[way](quadratic.problem(), step)
    ahead = quadratic.weights.detach() - rate * quadratic.lower_weight_gradient()
    expected = quadratic.direct_gradient() - rate * quadratic.through(ahead - quadratic.target)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-8)
    moved = Quadratic(**{**vars(quadratic), "weights": ahead})
    assert losses.read() == pytest.approx(float(moved.upper_loss(0).detach()))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("steps", [0, 5])
@pytest.mark.parametrize(("n", "m", "rho", "seed"), SETTINGS)
def test_through_a_step_of_adamw_it_is_the_closed_form(
    n: int, m: int, rho: float, seed: int, steps: int, way: str
) -> None:
    quadratic = Quadratic.build(n, m, rho, seed)
    rate, decay, (one, two), eps = 0.05, 0.1, (0.8, 0.9), 1e-8
    optimizer = torch.optim.AdamW([quadratic.weights], lr=rate, weight_decay=decay, betas=(one, two), eps=eps)
    mean = square = torch.zeros(n, dtype=torch.float64)
    for _ in range(steps):
        grad = quadratic.lower_weight_gradient()
        mean, square = one * mean + (1 - one) * grad, two * square + (1 - two) * grad**2
        quadratic.weights.grad = grad
        optimizer.step()
    grad, weights = quadratic.lower_weight_gradient(), quadratic.weights.detach()
    mean, square = one * mean + (1 - one) * grad, two * square + (1 - two) * grad**2
    bias_one, bias_two = 1 - one ** (steps + 1), math.sqrt(1 - two ** (steps + 1))
    below = square.sqrt() / bias_two + eps
    ahead = (1 - rate * decay) * weights - rate / bias_one * mean / below
    slope = -rate / bias_one * ((1 - one) / below - mean / below**2 * (1 - two) * grad / square.sqrt() / bias_two)
    expected = quadratic.direct_gradient() + quadratic.through(slope * (ahead - quadratic.target))
    (gradient,) = WAYS[way](quadratic.problem(), quadratic.step(optimizer))[1]
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_exact_is_the_slope_of_the_upper_loss_after_the_step_that_is_really_taken(search: dict[str, Any]) -> None:
    """By finite differences over the architecture, torch's own clipping and AdamW taking the step; in float64."""
    made = TinySearch.build(dtype=torch.float64, **search)
    problem, step = made.problem, made.step()
    (arch,), optimizer, state = problem.arch, made.loop.optimizers["lower"], made.state()
    generator = torch.Generator().manual_seed(1)
    towards, reach = torch.randn(arch.shape, generator=generator, dtype=torch.float64), 1e-4
    (gradient,) = exact(problem, step)[1]

    def upper_after(shift: float) -> float:
        rates = [group["lr"] for group in optimizer.param_groups]
        made.loop.load_state_tensors(state)
        with torch.no_grad():
            arch.add_(shift * towards)
        for weight, grad in zip(
            problem.weights, problem.gradients(problem.lower, step.lower, problem.weights)[1], strict=True
        ):
            weight.grad = grad
        torch.nn.utils.clip_grad_norm_(problem.weights, CLIP)
        optimizer.step()
        assert [group["lr"] for group in optimizer.param_groups] == rates
        return problem.gradients(problem.upper, step.upper, problem.arch)[0].read()

    numeric = (upper_after(reach) - upper_after(-reach)) / (2 * reach)
    if search.get("relaxation") == "gumbel":
        # A drawn candidate does not move with its logits; gradients pass straight through the draw.
        assert numeric == 0 and gradient.abs().max() > 0
    else:
        assert float((gradient * towards).sum()) == pytest.approx(numeric, rel=1e-4)


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_it_points_where_the_exact_one_of_float32_points_also_under_bfloat16_autocast(search: dict[str, Any]) -> None:
    rounded, full = TinySearch.build(bf16=True, **search), TinySearch.build(**search)
    full.loop.load_state_tensors(rounded.state())
    step, expected = full.step(), exact(full.problem, full.step())[1]
    found, by_exact = HYPERGRADIENTS["unrolled"](full.problem, step)[1], correction(full.problem, step, exact)
    assert cosine(found, expected) > 0.999 and error(found, expected) < 1e-3
    part = correction(full.problem, step, Unrolled())
    assert cosine(part, by_exact) > 0.999 and error(part, by_exact) < 1e-3
    step = rounded.step()
    assert cosine(HYPERGRADIENTS["unrolled"](rounded.problem, step)[1], expected) > 0.99
    assert cosine(correction(rounded.problem, step, Unrolled()), by_exact) > 0.99


@pytest.mark.parametrize("search", SEARCHES[:2], ids=str)
def test_a_step_of_adamw_taken_for_one_of_sgd_loses_most_of_the_correction(search: dict[str, Any]) -> None:
    made = TinySearch.build(**search)
    step = made.step()
    rate = made.loop.optimizers["lower"].param_groups[0]["lr"]
    plain = step._replace(weights=WeightStep(torch.optim.SGD(made.problem.weights, lr=rate), CLIP))
    true, found = correction(made.problem, step, exact), correction(made.problem, plain, exact)
    assert found[0].norm() < 0.3 * true[0].norm()
    assert cosine(found, true) < 0.9


@pytest.mark.parametrize("lost", ["state", "clipping"])
def test_a_step_without_what_it_depends_on_is_another(lost: str) -> None:
    made = TinySearch.build(family="gpt2")
    step, group = made.step(), made.loop.optimizers["lower"].param_groups[0]
    fresh = torch.optim.AdamW(made.problem.weights, lr=group["lr"], weight_decay=group["weight_decay"])
    less = WeightStep(fresh, CLIP) if lost == "state" else WeightStep(step.weights.optimizer)
    true = correction(made.problem, step, exact)
    assert error(correction(made.problem, step._replace(weights=less), exact), true) > 0.1


def test_only_the_last_micro_batch_would_give_another() -> None:
    made = TinySearch.build(accumulation=2)
    problem, step = made.problem, made.step()
    lower = problem.lower

    def last(number: int) -> Tensor:
        return lower.loss(2 * number + 1)

    alone = BilevelProblem(type(lower)("lower", last), problem.upper, problem.weights, problem.arch)
    assert error(correction(alone, step, exact), correction(problem, step, exact)) > 0.1


def test_a_radius_that_is_too_large_is_seen_in_the_direction() -> None:
    made = TinySearch.build()
    step = made.step()
    wide = correction(made.problem, step, Unrolled(CentralDifference(1.0)))
    assert cosine(wide, correction(made.problem, step, exact)) < 0.9


def test_an_upper_loss_that_raises_leaves_the_weights_where_they_were() -> None:
    made = TinySearch.build()
    step, before = made.step(), made.state()

    def broken(number: int) -> Tensor:
        raise KeyboardInterrupt

    problem = BilevelProblem(
        made.problem.lower, type(made.problem.upper)("upper", broken), made.problem.weights, made.problem.arch
    )
    with pytest.raises(KeyboardInterrupt):
        HYPERGRADIENTS["unrolled"](problem, step)
    after = made.state()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(tensor.requires_grad for tensor in (*problem.weights, *problem.arch))
