"""Finite differences against autograd, on quadratics and on the supernet of a tiny transformer."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from bilevel.quadratic import SETTINGS, Quadratic
from bilevel.tiny_search import TinySearch, error
from grids import in_turn
from torch import Tensor

from morenas.bilevel import BilevelProblem, CentralDifference, Level, SecondDerivative, double_backward

WAYS: dict[str, SecondDerivative] = {"differences": CentralDifference(), "autograd": double_backward}


@cache
def warmed(family: str = "bert", accumulation: int = 1) -> TinySearch:
    """Built once for all tests: what is tested leaves it as it was."""
    return TinySearch.build(family=family, accumulation=accumulation)


def direction_of(search: TinySearch) -> list[Tensor]:
    """Where the upper loss would have the weights go."""
    return search.problem.gradients(search.problem.upper, 0, search.problem.weights)[1]


def without_full_precision(problem: BilevelProblem) -> BilevelProblem:
    return replace(problem, lower=replace(problem.lower, full_precision=None))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("n", "m", "rho", "seed"), SETTINGS)
def test_on_a_quadratic_it_is_the_matrix_product(n: int, m: int, rho: float, seed: int, way: str) -> None:
    quadratic, problem = Quadratic.build(n, m, rho, seed), Quadratic.build(n, m, rho, seed).problem()
    vector = torch.randn(n, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    (mixed,) = WAYS[way](problem, 0, [vector], problem.arch)
    (hessian,) = WAYS[way](problem, 0, [vector], problem.weights)
    torch.testing.assert_close(mixed, quadratic.through(vector), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(hessian, quadratic.hessian @ vector, rtol=1e-7, atol=1e-9)


@in_turn(family=["bert", "deberta-v2", "llama"], accumulation=[1, 2])
def test_differences_are_what_autograd_finds_in_float32(family: str, accumulation: int) -> None:
    """With dropout, and through torch's fused attention where the family takes it."""
    search = warmed(family, accumulation)
    for inputs in (search.problem.weights, search.problem.arch):
        given = search.problem, 3, direction_of(search), inputs
        assert error(CentralDifference()(*given), double_backward(*given)) < 1e-3


def test_fused_attention_can_be_differentiated_once_only_which_differences_do_not_mind() -> None:
    search = TinySearch.build(attention_probs_dropout_prob=0.0)  # with dropout a processor has no fused one
    problem, direction = search.problem, direction_of(search)
    with pytest.raises(RuntimeError, match="derivative for aten::_scaled_dot_product"):
        grads = problem.lower.gradients(3, problem.weights, create_graph=True)[1]
        torch.autograd.grad(grads, problem.arch, direction)
    given = problem, 3, direction, problem.arch
    assert error(CentralDifference()(*given), double_backward(*given)) < 1e-3


@pytest.mark.parametrize(("radius", "least", "most"), [(1.0, 0.2, 99), (1e-2, 0, 1e-2), (1e-3, 0, 1e-4)])
def test_the_radius_decides_the_error_in_float32(radius: float, least: float, most: float) -> None:
    search = warmed()
    given = search.problem, 3, direction_of(search), search.problem.arch
    assert least < error(CentralDifference(radius)(*given), double_backward(*given)) < most


def test_autocast_is_left_out_of_the_probes_since_its_rounding_is_not_small() -> None:
    search = TinySearch.build(bf16=True)
    problem, direction = search.problem, direction_of(search)
    expected = double_backward(problem, 3, direction, problem.arch)
    assert error(CentralDifference(1e-3)(problem, 3, direction, problem.arch), expected) < 1e-3
    rounded = without_full_precision(problem)
    assert error(CentralDifference(1e-3)(rounded, 3, direction, problem.arch), expected) > 0.1
    assert error(CentralDifference(1e-1)(rounded, 3, direction, problem.arch), expected) < 0.1


def test_both_probes_draw_the_same_dropout_and_would_find_noise_if_they_did_not() -> None:
    search = warmed()
    problem, direction = search.problem, direction_of(search)
    numbers: list[int] = []

    def noted(number: int) -> Tensor:
        numbers.append(number)
        return problem.lower.loss(number)

    def unshared(number: int) -> Tensor:
        numbers.append(number)
        return problem.lower.loss(number + 100 * len(numbers))

    expected = double_backward(problem, 3, direction, problem.arch)
    for loss, least, most in ((noted, 0, 1e-3), (unshared, 0.5, 1e9)):
        numbers.clear()
        watched = replace(problem, lower=Level("lower", loss))
        assert least < error(CentralDifference()(watched, 3, direction, problem.arch), expected) < most
        assert numbers == [3, 3]


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_the_weights_are_put_back_bit_for_bit_whatever_a_loss_does(fails_at: int) -> None:
    search = warmed()
    problem, direction, before = search.problem, direction_of(search), search.state()
    calls: list[int] = []

    def loss(number: int) -> Tensor:
        calls.append(number)
        if len(calls) == fails_at:
            raise KeyboardInterrupt
        return problem.lower.loss(number)

    given = replace(problem, lower=Level("lower", loss)), 3, direction, problem.arch
    if fails_at > 2:
        CentralDifference()(*given)
    else:
        with pytest.raises(KeyboardInterrupt):
            CentralDifference()(*given)
    after = search.state()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(tensor.requires_grad for tensor in (*problem.weights, *problem.arch))


def test_subtracting_what_was_added_would_not_put_the_weights_back() -> None:
    """Why they are put back from a copy."""
    search = warmed()
    weights, direction = [weight.detach() for weight in search.problem.weights], direction_of(search)
    assert not all(torch.equal(w + 0.1 * d - 0.1 * d, w) for w, d in zip(weights, direction, strict=True))


def test_no_direction_has_no_derivative_and_takes_no_pass() -> None:
    def loss(number: int) -> Tensor:
        raise AssertionError("never called")

    quadratic = Quadratic.build(4, 3, 1.0, 0)
    problem = replace(quadratic.problem(), lower=Level("lower", loss))
    (found,) = CentralDifference()(problem, 0, [torch.zeros_like(quadratic.weights)], problem.arch)
    assert torch.equal(found, torch.zeros_like(quadratic.arch))


def test_a_direction_that_is_not_finite_is_refused() -> None:
    quadratic = Quadratic.build(4, 3, 1.0, 0)
    with pytest.raises(ArithmeticError, match="lower loss of step 5 along is not finite"):
        CentralDifference()(quadratic.problem(), 5, [quadratic.weights.detach() / 0], [quadratic.arch])


def test_weights_of_zero_are_moved_by_the_radius_itself() -> None:
    weights, arch = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    seen: list[float] = []

    def loss(number: int) -> Tensor:
        seen.append(float(weights.detach()[0]))
        return (weights * arch).sum()

    level = Level("lower", loss)
    direction = torch.tensor([2.0, 0.0, 0.0])
    (found,) = CentralDifference(1e-2)(BilevelProblem(level, level, [weights], [arch]), 0, [direction], [arch])
    assert seen == pytest.approx([1e-2, -1e-2])
    torch.testing.assert_close(found, direction)
