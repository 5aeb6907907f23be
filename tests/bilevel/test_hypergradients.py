"""What holds of every hypergradient, and the simple ones against their closed form on quadratics."""

from __future__ import annotations

import pytest
import torch
from bilevel.estimators import HYPERGRADIENTS
from bilevel.quadratic import SETTINGS, Quadratic
from bilevel.tiny_search import TinySearch
from torch import Tensor

from morenas.bilevel import (
    BilevelProblem,
    Hypergradient,
    Level,
    MixedLevel,
    NonFiniteLoss,
    Step,
    WeightStep,
    exact,
)

ALL: dict[str, Hypergradient] = {**HYPERGRADIENTS, "exact": exact}


@pytest.mark.parametrize(("n", "m", "rho", "seed"), SETTINGS)
def test_first_order_is_the_direct_term(n: int, m: int, rho: float, seed: int) -> None:
    quadratic = Quadratic.build(n, m, rho, seed)
    losses, (gradient,) = HYPERGRADIENTS["first_order"](quadratic.problem(), quadratic.step())
    torch.testing.assert_close(gradient, quadratic.direct_gradient())
    assert losses.read() == pytest.approx(float(quadratic.upper_loss(0).detach()))


@pytest.mark.parametrize(("n", "m", "rho", "seed"), SETTINGS)
def test_single_level_is_the_gradient_of_the_lower_loss(n: int, m: int, rho: float, seed: int) -> None:
    quadratic = Quadratic.build(n, m, rho, seed)
    losses, (gradient,) = HYPERGRADIENTS["single_level"](quadratic.problem(), quadratic.step())
    torch.testing.assert_close(gradient, quadratic.lower_arch_gradient())
    assert losses.read() == pytest.approx(float(quadratic.lower_loss(0).detach()))


@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize(("n", "m", "rho", "seed"), SETTINGS)
def test_mixed_level_is_the_gradient_of_both_losses(n: int, m: int, rho: float, seed: int, weight: float) -> None:
    quadratic = Quadratic.build(n, m, rho, seed)
    mixed = HYPERGRADIENTS["mixed_level"] if weight == 1 else MixedLevel(weight)
    losses, (gradient,) = mixed(quadratic.problem(), quadratic.step())
    torch.testing.assert_close(gradient, quadratic.direct_gradient() + weight * quadratic.lower_arch_gradient())
    assert losses.read() == pytest.approx(float(quadratic.upper_loss(0).detach()))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("first_order", {("upper", 2): 1}),
        ("single_level", {("lower", 11): 1}),
        ("mixed_level", {("upper", 2): 1, ("lower", 11): 1}),
        ("unrolled", {("upper", 2): 1, ("lower", 11): 3}),
        ("neumann", {("upper", 2): 1, ("lower", 11): 16}),
        ("exact", {("upper", 2): 1, ("lower", 11): 2}),
    ],
)
def test_each_reads_each_level_at_the_step_of_that_level(name: str, expected: dict[tuple[str, int], int]) -> None:
    """And costs the passes that its docstring says."""
    weights, arch = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3.0, 4.0], requires_grad=True)
    seen: dict[tuple[str, int], int] = {}

    def level(called: str) -> Level:
        def loss(number: int) -> Tensor:
            seen[called, number] = seen.get((called, number), 0) + 1
            return (weights**3 * arch).sum()

        return Level(called, loss)

    ahead = WeightStep(torch.optim.SGD([weights], lr=0.1))
    ALL[name](BilevelProblem(level("lower"), level("upper"), [weights], [arch]), Step(2, 11, ahead))
    assert seen == expected


@pytest.mark.parametrize("name", sorted(ALL))
def test_it_changes_no_parameter_and_no_optimizer_state_and_leaves_no_grad(name: str) -> None:
    search = TinySearch.build(warmup=3, relaxation="gumbel")
    step, before = search.step(), search.state()
    ALL[name](search.problem, step)
    after = search.state()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    tensors = [*search.problem.weights, *search.problem.arch]
    assert all(tensor.grad is None and tensor.requires_grad for tensor in tensors)


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_fresh_optimizer_stays_fresh(name: str) -> None:
    quadratic = Quadratic.build(4, 3, 1.0, 3)
    optimizer = torch.optim.AdamW([quadratic.weights])
    ALL[name](quadratic.problem(), quadratic.step(optimizer))
    assert not optimizer.state


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_micro_batch_counts(name: str) -> None:
    """Two micro-batches of two losses are one of their mean."""
    weights, arch = torch.full((3,), 0.7, requires_grad=True), torch.tensor([0.4, -0.2, 0.9], requires_grad=True)
    scales = torch.tensor([1.0, 4.0, 0.5, 2.0]).unsqueeze(1)

    def loss(number: int) -> Tensor:
        return (scales[number] * (weights - arch * (number + 1)) ** 2).sum() + (weights * arch).prod()

    def mean(number: int) -> Tensor:
        return (loss(2 * number) + loss(2 * number + 1)) / 2

    step = Step(1, 0, WeightStep(torch.optim.AdamW([weights], lr=0.1)))
    parts = BilevelProblem(Level("lower", loss, 2), Level("upper", loss, 2), [weights], [arch])
    whole = BilevelProblem(Level("lower", mean), Level("upper", mean), [weights], [arch])
    (found,), (expected,) = ALL[name](parts, step)[1], ALL[name](whole, step)[1]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["first_order", "single_level", "mixed_level"])
def test_adapters_that_start_as_zero_give_the_architecture_a_gradient_of_zero(name: str) -> None:
    search = TinySearch.build(warmup=0)
    (gradient,) = ALL[name](search.problem, search.step())[1]
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("name", ["unrolled", "neumann", "exact"])
def test_looking_ahead_of_adapters_that_start_as_zero_gives_a_gradient(name: str) -> None:
    """The next weights, or the best ones, are not zero."""
    search = TinySearch.build(warmup=0)
    (gradient,) = ALL[name](search.problem, search.step())[1]
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0


@pytest.mark.parametrize("level", ["lower", "upper"])
@pytest.mark.parametrize("name", sorted(ALL))
def test_a_loss_that_is_not_finite_is_named_as_what_it_is(name: str, level: str) -> None:
    quadratic = Quadratic.build(4, 3, 1.0, 3)
    good = {"lower": quadratic.lower_loss, "upper": quadratic.upper_loss}
    losses = {**good, level: lambda n: good[level](n) * float("nan")}
    problem = BilevelProblem(
        Level("lower", losses["lower"]), Level("upper", losses["upper"]), [quadratic.weights], [quadratic.arch]
    )
    before = quadratic.weights.detach().clone()
    if (name, level) in {("first_order", "lower"), ("single_level", "upper")}:
        assert torch.isfinite(ALL[name](problem, quadratic.step())[1][0]).all()
        return
    with pytest.raises(NonFiniteLoss, match=f"{level} loss is nan at step 0"):
        ALL[name](problem, quadratic.step())[0].read()
    assert torch.equal(quadratic.weights, before)
