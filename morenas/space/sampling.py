"""Random architectures under a budget."""

from __future__ import annotations

import torch

from morenas.space.candidates import Choice
from morenas.space.choices import SearchSpace


def sample_architecture(space: SearchSpace, budget: int, generator: torch.Generator) -> dict[str, Choice]:
    """Draw an architecture that no single further choice could enlarge without exceeding the budget.

    Every group draws evenly among its choices; then groups in random order draw again, among cheaper choices while the
    whole exceeds the budget, and among more expensive ones that still fit once it does not.

    Returns:
        Module name to choice; modules without an adapter are absent.
    Raises:
        ValueError: If not even the cheapest choices fit.
    """
    costs = space.costs().masked_fill(~space.admissible(), -1)
    groups = range(len(costs))
    picks = [_draw((costs[group] >= 0).nonzero().flatten(), generator) for group in groups]
    spent = sum(int(costs[group, pick]) for group, pick in zip(groups, picks, strict=True))
    for enlarge in (False, True):
        moved = True
        while moved and (enlarge or spent > budget):
            moved = False
            for group in torch.randperm(len(costs), generator=generator).tolist():
                if not enlarge and spent <= budget:
                    break
                now = int(costs[group, picks[group]])
                room = costs[group] <= now + budget - spent if enlarge else costs[group] >= 0
                other = costs[group] > now if enlarge else costs[group] < now
                options = (other & room & (costs[group] >= 0)).nonzero().flatten()
                if len(options):
                    picks[group] = _draw(options, generator)
                    spent += int(costs[group, picks[group]]) - now
                    moved = True
    if spent > budget:
        raise ValueError(f"No architecture of this space costs at most {budget:,}.")
    return space.shapes(picks)


def _draw(options: torch.Tensor, generator: torch.Generator) -> int:
    return int(options[int(torch.randint(len(options), (), generator=generator))])
