"""Every group's best choice, then downgrades where the budget asks for them."""

from __future__ import annotations

import torch
from torch import Tensor


def argmax(scores: Tensor, costs: Tensor, budget: int) -> list[int]:
    """Take each group's highest score; while too dear, make the downgrade that loses the least score per cost saved.

    Args:
        scores: Shape ``(groups, choices)``; ``-inf`` forbids a choice.
        costs: Whole numbers, same shape.
    Returns:
        One choice index per group.
    Raises:
        ValueError: If no selection fits the budget.
    """
    scores = scores.detach().double().cpu()
    costs = costs.cpu().double()
    picks = scores.argmax(dim=1)
    rows = torch.arange(len(picks))
    while (excess := float(costs[rows, picks].sum()) - budget) > 0:
        saved = costs[rows, picks].unsqueeze(1) - costs
        lost = scores[rows, picks].unsqueeze(1) - scores
        # Saving more than the excess earns no more than saving the excess.
        rate = torch.where((saved > 0) & torch.isfinite(lost), lost / saved.clamp(max=excess), torch.inf)
        if not torch.isfinite(rate).any():
            raise ValueError(f"No selection costs at most {budget:,}.")
        group, choice = divmod(int(rate.argmin()), scores.shape[1])
        picks[group] = choice
    return [int(pick) for pick in picks]
