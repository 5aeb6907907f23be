"""The parameter budget, in the three ways users state it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from morenas.base.errors import InputError
from morenas.space.choices import SearchSpace


@dataclass(frozen=True)
class Budget:
    """A number of adapter parameters that the architecture must not exceed, and how it was asked for.

    Attributes:
        params: Adapter parameters, head not counted.
        request: What the user gave: some of ``params``, ``fraction``, ``lora_rank``.
    """

    params: int
    request: Mapping[str, float]

    @classmethod
    def resolve(
        cls,
        space: SearchSpace,
        model_parameters: int | None = None,
        params: int | None = None,
        fraction: float | None = None,
        lora_rank: int | None = None,
    ) -> Budget:
        """Turn a request into a number of parameters and check that the space can meet it.

        Args:
            space: The search space.
            model_parameters: ``model.num_parameters()``; needed where ``fraction`` is a share of them.
            params: Adapter parameters; excludes the other two.
            fraction: Share of the model's parameters, or of a LoRA's where ``lora_rank`` is set.
            lora_rank: Rank of a LoRA on the same modules that ``fraction`` refers to.
        Raises:
            InputError: If the request is missing, ambiguous, not positive, or below the smallest architecture.
        """
        given = {"params": params, "fraction": fraction, "lora_rank": lora_rank}
        request = {key: value for key, value in given.items() if value is not None}
        _check_request(request)
        if params is not None:
            total = params
        else:
            whole = model_parameters if lora_rank is None else lora_parameters(space.modules, lora_rank)
            if whole is None:
                raise InputError(
                    f"budget.fraction={fraction}: a share of the model's parameters, whose number was not given; give "
                    "Budget.resolve(space, model.num_parameters(), fraction=…), or lora_rank for a share of a LoRA's."
                )
            total = int(whole * (1.0 if fraction is None else fraction))
        _check_reachable(space, total, request)
        return cls(total, request)


def lora_parameters(modules: Mapping[str, tuple[int, int]], rank: int) -> int:
    """Parameters of a LoRA of ``rank`` on every module."""
    return rank * sum(n + m for n, m in modules.values())


def _check_request(request: Mapping[str, float]) -> None:
    spelled = ", ".join(f"budget.{key}={value}" for key, value in request.items())
    ways = (
        "give budget.params=<number>, budget.fraction=<share of the model>, "
        "or budget.lora_rank=<r> budget.fraction=<share of that LoRA>"
    )
    if not request:
        raise InputError(f"No budget was given: {ways}.")
    if "params" in request and len(request) > 1:
        raise InputError(f"{spelled}: budget.params already says the whole budget; {ways}.")
    for key, value in request.items():
        if not 0 < value < math.inf:
            raise InputError(f"budget.{key}={value}: a budget must be greater than 0, and finite; {ways}.")


def _check_reachable(space: SearchSpace, total: int, request: Mapping[str, float]) -> None:
    spelled = ", ".join(f"budget.{key}={value}" for key, value in request.items())
    costs = space.costs()
    if total > torch.iinfo(costs.dtype).max:
        raise InputError(f"{spelled}: {total:.1e} parameters are more than can be counted; lower the budget.")
    adapters = torch.tensor([choice.blk_r > 0 for choice in space.choices])
    smallest = int(costs[space.admissible() & adapters].min())
    cheapest = costs.masked_fill(~space.admissible(), torch.iinfo(torch.int64).max).min(dim=1).values
    least = max(int(cheapest.sum()), smallest)
    if total < least:
        optional = any(choice.blk_r == 0 for choice in space.choices)
        ways = ["raise the budget", *([] if optional else ["add 0 to space.ranks"]), "name fewer space.target_modules"]
        raise InputError(
            f"{spelled}: {total:,} parameters are below the smallest architecture of this search space ({least:,}); "
            f"{', '.join(ways[:-1])} or {ways[-1]}."
        )
