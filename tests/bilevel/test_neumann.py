from __future__ import annotations

from typing import Any

import pytest
import torch
from bilevel.estimators import HYPERGRADIENTS
from bilevel.quadratic import SETTINGS, Quadratic
from bilevel.tiny_search import TinySearch, cosine, error
from grids import in_turn

from morenas.bilevel import BilevelProblem, Level, Neumann, Unrolled, double_backward

SEARCHES: list[dict[str, Any]] = [{}, {"accumulation": 2}, {"relaxation": "gumbel"}, {"family": "gpt2"}]
CONVERGED = Neumann(terms=400, power_steps=60)


def implicit_gradient(quadratic: Quadratic) -> torch.Tensor:
    """``- d2L/da dw  H^-1  dU/dw`` is ``C' (w - t)``."""
    return quadratic.direct_gradient() + quadratic.coupling.T @ (quadratic.weights.detach() - quadratic.target)


@in_turn(problem=SETTINGS, scale=[0.5, 1.0, 1.9])
def test_enough_terms_give_the_implicit_gradient(problem: tuple[int, int, float, int], scale: float) -> None:
    quadratic = Quadratic.build(*problem)
    neumann = Neumann(terms=400, scale=scale, power_steps=60)
    losses, (gradient,) = neumann(quadratic.problem(), quadratic.step())
    torch.testing.assert_close(gradient, implicit_gradient(quadratic), rtol=1e-4, atol=1e-6)
    assert losses.read() == pytest.approx(float(quadratic.upper_loss(0).detach()))


@pytest.mark.parametrize(("n", "m", "rho", "seed"), SETTINGS)
def test_at_the_lower_minimum_it_is_the_total_derivative(n: int, m: int, rho: float, seed: int) -> None:
    quadratic = Quadratic.build(n, m, rho, seed)
    arch = quadratic.arch.detach().clone().requires_grad_()
    best = Quadratic(**{**vars(quadratic), "weights": quadratic.coupling @ arch, "arch": arch})
    (expected,) = torch.autograd.grad(best.upper_loss(0), arch)
    with torch.no_grad():
        quadratic.weights.copy_(quadratic.coupling @ quadratic.arch)
    (gradient,) = CONVERGED(quadratic.problem(), quadratic.step())[1]
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("terms", [1, 2, 7])
@pytest.mark.parametrize(("n", "m", "rho", "seed"), SETTINGS)
def test_few_terms_give_the_truncated_series(n: int, m: int, rho: float, seed: int, terms: int) -> None:
    quadratic = Quadratic.build(n, m, rho, seed)
    scale = 0.8
    (gradient,) = Neumann(terms=terms, scale=scale, power_steps=60)(quadratic.problem(), quadratic.step())[1]
    rate = scale / torch.linalg.eigvalsh(quadratic.hessian).max()
    shrinking = torch.eye(n, dtype=torch.float64) - rate * quadratic.hessian
    inverse = rate * sum(torch.linalg.matrix_power(shrinking, power) for power in range(terms))
    vector = inverse @ (quadratic.weights - quadratic.target).detach()
    expected = quadratic.direct_gradient() - quadratic.through(vector)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_more_terms_come_nearer() -> None:
    quadratic = Quadratic.build(6, 4, 0.0, 1)
    expected = implicit_gradient(quadratic)
    errors = [
        error(Neumann(terms=terms)(quadratic.problem(), quadratic.step())[1], [expected]) for terms in (1, 4, 16, 64)
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-3 < errors[0]


def test_of_what_is_flat_against_the_largest_curvature_little_counts() -> None:
    """Of a direction of eigenvalue h the share ``(1 - rate h)^terms`` is missing."""
    weights, arch = torch.tensor([1.0, 1.0], requires_grad=True), torch.zeros(2, requires_grad=True)
    curvatures = torch.tensor([4.0, 0.04])
    lower = Level("lower", lambda n: (curvatures * (weights - arch) ** 2).sum() / 2)
    upper = Level("upper", lambda n: weights.sum())
    problem = BilevelProblem(lower, upper, [weights], [arch])
    (gradient,) = Neumann(terms=10)(problem, Quadratic.build(2, 2, 0, 0).step())[1]
    torch.testing.assert_close(gradient, torch.tensor([1.0, 1 - 0.99**10]), rtol=1e-3, atol=1e-3)


def test_where_the_lower_loss_is_flat_the_direct_term_is_left() -> None:
    weights, arch = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    lower, upper = Level("lower", lambda n: (weights * arch).sum()), Level("upper", lambda n: (weights * arch).sum())
    (gradient,) = Neumann()(BilevelProblem(lower, upper, [weights], [arch]), Quadratic.build(2, 2, 0, 0).step())[1]
    torch.testing.assert_close(gradient, torch.ones(2), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_it_is_what_exact_products_give_in_float32_also_under_bfloat16_autocast(search: dict[str, Any]) -> None:
    rounded, full = TinySearch.build(bf16=True, **search), TinySearch.build(**search)
    full.loop.load_state_tensors(rounded.state())
    step = full.step()
    direct = HYPERGRADIENTS["first_order"](full.problem, step)[1]
    found, expected = (
        way(full.problem, step)[1] for way in (HYPERGRADIENTS["neumann"], Neumann(second_derivative=double_backward))
    )
    assert cosine(found, expected) > 0.999 and error(found, expected) < 1e-3
    parts = [[one - other for one, other in zip(whole, direct, strict=True)] for whole in (found, expected)]
    assert cosine(*parts) > 0.999
    under_autocast = HYPERGRADIENTS["neumann"](rounded.problem, rounded.step())[1]
    assert cosine(under_autocast, expected) > 0.99


def test_the_first_term_is_a_step_of_sgd_unrolled() -> None:
    """Of rate ``scale / curvature``, at the minimum, where that step moves nothing."""
    quadratic = Quadratic.build(5, 3, 1.0, 4)
    with torch.no_grad():
        quadratic.weights.copy_(quadratic.coupling @ quadratic.arch)
    rate = 1 / float(torch.linalg.eigvalsh(quadratic.hessian).max())
    step = quadratic.step(torch.optim.SGD([quadratic.weights], lr=rate))
    one, other = (
        way(quadratic.problem(), step)[1] for way in (Neumann(terms=1, power_steps=60), Unrolled(double_backward))
    )
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("given", "said"),
    [({"terms": 0}, "terms=0"), ({"power_steps": 0}, "power_steps=0"), ({"scale": 2.0}, "diverges")],
)
def test_numbers_out_of_range_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Neumann(**given)
