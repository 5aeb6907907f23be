"""Every group's best choice, then downgrades where the budget asks for them."""

from __future__ import annotations

import torch

from morenas.selection.evidence import Evidence


def argmax(evidence: Evidence) -> list[int]:
    """Take each group's highest score, then downgrade one group after another while the budget is exceeded.

    Each downgrade is the one that loses the least score per cost saved. Nothing is measured.

    Raises:
        ValueError: If nothing fits the budget.
    """
    scores = evidence.scores.detach().double().cpu()
    costs = evidence.costs.cpu().double()
    picks = scores.argmax(dim=1)
    rows = torch.arange(len(picks))
    while (excess := float(costs[rows, picks].sum()) - evidence.budget) > 0:
        saved = costs[rows, picks].unsqueeze(1) - costs
        lost = scores[rows, picks].unsqueeze(1) - scores
        # Saving more than the excess earns no more than saving the excess.
        rate = torch.where((saved > 0) & torch.isfinite(lost), lost / saved.clamp(max=excess), torch.inf)
        if not torch.isfinite(rate).any():
            raise ValueError(f"No selection costs at most {evidence.budget:,}.")
        group, choice = divmod(int(rate.argmin()), scores.shape[1])
        picks[group] = choice
    return [int(pick) for pick in picks]
