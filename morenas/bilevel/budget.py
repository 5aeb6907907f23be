"""Keeping the expected cost of a relaxed architecture within a budget, at every step and without a penalty weight.

The logits are tilted: ``logits - price * cost``, with one price for all groups, the one that brings the expected cost
down to the budget. It is the multiplier of the constraint, found anew at every step, so that the search compares
architectures of equal cost from its first step to its last.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TOLERANCE = 1e-12  # of the budget, by which the expected cost may stay below it
SURE = 1e-7  # nats, to which an entropy is met
NEAREST = 0.01
TRIALS = 150  # at most; some ten are usual


def expected_cost(probs: Tensor, costs: Tensor) -> Tensor:
    """Expected total cost of independent draws, a scalar.

    Args:
        probs: Probabilities, shape ``(groups, choices)``.
        costs: Cost of each choice, same shape.
    """
    return (probs * costs).sum()


def hold_budget(logits: Tensor, costs: Tensor, budget: float, temperature: float = 1.0) -> Tensor:
    """Tilt logits so that ``softmax(tilted / temperature)`` costs at most ``budget`` in expectation.

    Where the logits already do, they come back unchanged. The price is differentiated too: gradients flow along the
    surface of equal cost, so descending them reallocates the budget instead of asking for more of it.

    Args:
        logits: Shape ``(groups, choices)``; ``-inf`` forbids a choice.
        costs: Non-negative costs, same shape, finite also where a choice is forbidden.
        budget: Largest expected total cost.
        temperature: Divides the logits in the softmax.
    Raises:
        ValueError: If the cheapest allowed choices together cost more than the budget.
    """
    exact = logits.detach().double()
    allowed = torch.isfinite(exact)
    unit = budget / costs.shape[0]
    scaled = costs.double() / unit
    cheapest = float(torch.where(allowed, scaled, torch.inf).min(dim=1).values.sum()) * unit
    if cheapest > budget * (1 + 1e-9):
        raise ValueError(f"The cheapest choices cost {cheapest:g}, more than the budget {budget:g}.")
    price = _price(exact, scaled, costs.shape[0], temperature)
    if price == 0:
        return logits
    return logits - _differentiable(price, logits, scaled, temperature).to(logits.dtype) * scaled.to(logits.dtype)


def _cost_at(price: float, logits: Tensor, costs: Tensor, temperature: float) -> float:
    return float(expected_cost(torch.softmax((logits - price * costs) / temperature, dim=-1), costs))


def _price(logits: Tensor, costs: Tensor, budget: float, temperature: float) -> float:
    """The price whose expected cost is within the budget, by ``TOLERANCE`` at most; 0 where it is within it anyway."""
    if _cost_at(0.0, logits, costs, temperature) <= budget:
        return 0.0
    low, high = 0.0, 1.0
    while _cost_at(high, logits, costs, temperature) > budget and high < 1e12:
        low, high = high, 2 * high
    slack = budget * TOLERANCE / 2
    return _root(lambda price: _cost_at(price, logits, costs, temperature) - budget + slack, low, high, slack)


def _root(falling: Callable[[float], float], low: float, high: float, tolerance: float) -> float:
    """Where a falling function is 0, to a tolerance; else the upper end of the smallest bracket.

    The false position by the Illinois rule, which halves the weight of an end that stays twice. A bracket that four
    trials have hardly narrowed is halved: such functions are all but staircases.
    """
    above, below, last, width = falling(low), falling(high), 0.0, high - low
    for trial in range(1, TRIALS):
        at = low + (high - low) * above / (above - below) if above > 0 > below else low
        if trial % 4 == 0:
            at, width = (low + high) / 2 if high - low > width / 16 else at, high - low
        at = at if low < at < high else (low + high) / 2
        value = falling(at)
        if abs(value) <= tolerance:
            return at
        stays = 2 if value * last > 0 else 1
        if value > 0:
            low, above, below = at, value, below / stays
        else:
            high, below, above = at, value, above / stays
        last = value
    return high


def _differentiable(price: float, logits: Tensor, costs: Tensor, temperature: float) -> Tensor:
    """The price as a function of the logits: its value, with the gradient of the implicit function theorem.

    One Newton step from the solution has the solution's value and its derivative,
    ``d price / d logits = (d cost / d logits) / (- d cost / d price)``.
    """
    probs = torch.softmax((logits.double() - price * costs) / temperature, dim=-1)
    mean = (probs * costs).sum(dim=-1, keepdim=True)
    slope = (probs * (costs - mean) ** 2).sum().detach() / temperature
    if slope <= torch.finfo(torch.float64).tiny:
        return torch.tensor(price, dtype=torch.float64, device=logits.device)
    cost = expected_cost(probs, costs)
    return price + (cost - cost.detach()) / slope


def sharpened(scores: Tensor, costs: Tensor, budget: float, entropy: float) -> Tensor:
    """Scores as logits: multiplied so that, held within the budget, their mean entropy a group is ``entropy`` nats.

    The entropy falls as the factor rises, from that of level scores to what ties leave, and the choices that share the
    budget's last parameters. Nearer to that limit than ``NEAREST`` of the range the factor would grow without bound
    and nothing could move the logits again, so that it stops there.

    Args:
        scores: Shape ``(groups, choices)``; ``-inf`` forbids a choice.
        costs: As ``hold_budget`` takes them.
        budget: Largest expected total cost.
        entropy: Mean over the groups, in nats.
    Returns:
        Logits of the same shape, float32; the largest of every group is 0.
    Raises:
        ValueError: If the cheapest allowed choices together cost more than the budget.
    """
    scores = scores.double()
    # A softmax does not see what a group's scores have in common, and float32 would spend its digits on it.
    scores = scores - scores.amax(dim=1, keepdim=True).nan_to_num(neginf=0.0)
    unit = float(scores.masked_fill(~scores.isfinite(), 0.0).abs().max()) or 1.0

    def mean_entropy(sharpness: float) -> float:
        probs = torch.softmax(hold_budget(scores / unit * sharpness, costs, budget), dim=-1)
        return float(torch.special.entr(probs).sum(dim=-1).mean())

    least, most = -10.0, 20.0  # powers of two
    level, limit = mean_entropy(2**least), mean_entropy(2**most)
    entropy = max(entropy, limit + NEAREST * (level - limit))
    power = least if entropy >= level else _root(lambda power: mean_entropy(2**power) - entropy, least, most, SURE)
    return (scores / unit * 2**power).float()
