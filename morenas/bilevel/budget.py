"""Keeping the expected cost of a relaxed architecture within a budget, at every step and without a penalty weight.

The logits are tilted: ``logits - price * cost``, with one price for all groups, the smallest that brings the expected
cost down to the budget. It is the multiplier of the constraint, found anew at every step by bisection, so that the
search compares architectures of equal cost from its first step to its last.
"""

from __future__ import annotations

import torch
from torch import Tensor

BISECTIONS = 60
NEAREST = 0.01


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
    """The smallest non-negative price whose expected cost is within the budget: the cost falls as the price rises."""
    if _cost_at(0.0, logits, costs, temperature) <= budget:
        return 0.0
    low, high = 0.0, 1.0
    while _cost_at(high, logits, costs, temperature) > budget and high < 1e12:
        low, high = high, 2 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if _cost_at(middle, logits, costs, temperature) > budget:
            low = middle
        else:
            high = middle
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

    low, high = -10.0, 20.0  # powers of two
    level, limit = mean_entropy(2**low), mean_entropy(2**high)
    entropy = max(entropy, limit + NEAREST * (level - limit))
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_entropy(2**middle) > entropy else (low, middle)
    return (scores / unit * 2**low).float()
