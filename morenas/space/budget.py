"""The budget, in the ways users state it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from morenas.base.errors import InputError
from morenas.base.registry import registry
from morenas.space.candidates import Choice
from morenas.space.choices import SearchSpace
from morenas.space.cost import PARAMS, cost_table


@dataclass(frozen=True)
class Budget:
    """What the architecture must not exceed, and how the user asked for it.

    Attributes:
        params: Adapter parameters, head not counted; None where the budget is counted in another cost.
        request: What the user gave: some of ``params``, ``value``, ``fraction``, ``lora_rank``.
        cost: What it is counted in, as files record it: a name, or a name and settings.
        value: The budget in the unit of ``cost``; None where that is parameters.
    """

    params: int | None
    request: Mapping[str, float]
    cost: Any = PARAMS
    value: int | None = None

    def __post_init__(self) -> None:
        if (self.params is None) == (self.value is None) or (self.value is None) != (self.cost == PARAMS):
            raise InputError(
                f"Budget(params={self.params}, cost={self.cost!r}, value={self.value}): give parameters, or another "
                "cost and a value in its unit; Budget.resolve(space, …) does."
            )

    @classmethod
    def resolve(
        cls,
        space: SearchSpace,
        model_parameters: int | None = None,
        params: int | None = None,
        fraction: float | None = None,
        lora_rank: int | None = None,
        value: int | None = None,
    ) -> Budget:
        """Turn a request into a number in the unit of the space's cost, and check that the space can meet it.

        Args:
            space: The search space.
            model_parameters: ``model.num_parameters()``; needed where ``fraction`` is a share of them.
            params: Adapter parameters; excludes the rest.
            fraction: Share of the model's parameters, or of a LoRA's cost where ``lora_rank`` is set.
            lora_rank: Rank of a LoRA on the same modules that ``fraction`` refers to.
            value: A number in the unit of a cost other than parameters; excludes the rest.
        Raises:
            InputError: If the request is missing, ambiguous, not positive, in another unit than the space's cost, or
                below the smallest architecture.
        """
        given = {"params": params, "value": value, "fraction": fraction, "lora_rank": lora_rank}
        request = {key: number for key, number in given.items() if number is not None}
        _check_request(request, registry("cost").chosen_by(space.cost))
        total = params if value is None else value
        if total is None:
            whole = model_parameters if lora_rank is None else _lora_cost(space, lora_rank)
            if whole is None:
                raise InputError(
                    f"budget.fraction={fraction}: a share of the model's parameters, whose number was not given; give "
                    "Budget.resolve(space, model.num_parameters(), fraction=…), or lora_rank for a share of a LoRA's."
                )
            total = int(whole * (1.0 if fraction is None else fraction))
        _check_reachable(space, total, request)
        return cls.of(space, total, request)

    @classmethod
    def of(cls, space: SearchSpace, total: int, request: Mapping[str, float] | None = None) -> Budget:
        """A number in the unit of the space's cost, as it is."""
        cost = registry("cost").record(space.cost)
        if cost == PARAMS:
            return cls(total, request or {"params": total})
        return cls(None, request or {"value": total}, cost, total)

    @property
    def limit(self) -> int:
        """The budget in the unit of its cost."""
        return (self.params or 0) if self.value is None else self.value

    def __str__(self) -> str:
        if self.cost == PARAMS:
            return f"{self.limit:,} adapter parameters"
        return f"{self.limit:,} of {_name(self.cost)}"

    def document(self) -> dict[str, Any]:
        """The budget for a file."""
        if self.cost == PARAMS:
            return {"params": self.params, "request": dict(self.request)}
        return {"cost": self.cost, "value": self.value, "request": dict(self.request)}

    def check(self, space: SearchSpace) -> None:
        """Refuse a space whose costs are in another unit.

        Raises:
            InputError: If so.
        """
        cost = registry("cost").record(space.cost)
        if cost != self.cost:
            raise InputError(
                f"The budget is counted in {_name(self.cost)}, and the search space in {_name(cost)}: make it by "
                "Budget.resolve(space, …) of that very space."
            )


def lora_parameters(modules: Mapping[str, tuple[int, int]], rank: int) -> int:
    """Parameters of a LoRA of ``rank`` on every module."""
    return rank * sum(n + m for n, m in modules.values())


def _lora_cost(space: SearchSpace, rank: int) -> int:
    """What a LoRA of ``rank`` on every module costs: a LoRA is a Monarch adapter of one block."""
    groups = {"all": tuple(space.modules)}
    return int(cost_table(space.cost, space.modules, groups, [Choice(1, rank)]))


def _name(cost: Any) -> str:
    """What a cost is called, of what files record."""
    return str(cost["name"] if isinstance(cost, Mapping) else cost)


def _check_request(request: Mapping[str, float], cost: str) -> None:
    spelled = ", ".join(f"budget.{key}={value}" for key, value in request.items())
    whole, alone = ("params", "number") if cost == PARAMS else ("value", f"number in the unit of {cost}")
    ways = f"budget.{whole}=<{alone}>, "
    ways += "budget.fraction=<share of the model>, " if cost == PARAMS else ""
    ways = f"give {ways}or budget.lora_rank=<r> budget.fraction=<share of that LoRA>"
    if not request:
        raise InputError(f"No budget was given: {ways}.")
    if whole in request and len(request) > 1:
        raise InputError(
            f"{spelled}: budget.{whole} already says the whole budget; {ways}. On the command line budget=custom "
            f"leaves out what the default says: budget=custom budget.{whole}={request[whole]:g}."
        )
    for key, value in request.items():
        if not 0 < value < math.inf:
            raise InputError(f"budget.{key}={value}: a budget must be greater than 0, and finite; {ways}.")
    other = "value" if whole == "params" else "params"
    of_the_model = "fraction" in request and "lora_rank" not in request
    if other in request or (cost != PARAMS and of_the_model):
        raise InputError(f"{spelled}: the budget is counted in {cost} (budget.cost); {ways}.")


def _check_reachable(space: SearchSpace, total: int, request: Mapping[str, float]) -> None:
    spelled = ", ".join(f"budget.{key}={value}" for key, value in request.items())
    cost, costs = registry("cost").chosen_by(space.cost), space.costs()
    unit = "parameters" if cost == PARAMS else f"of {cost}"
    if total > torch.iinfo(costs.dtype).max:
        raise InputError(f"{spelled}: {total:.1e} {unit} are more than can be counted; lower the budget.")
    adapters = torch.tensor([choice.blk_r > 0 for choice in space.choices])
    cheapest = costs.masked_fill(~space.admissible(), torch.iinfo(torch.int64).max).min(dim=1, keepdim=True).values
    # The smallest architecture has an adapter somewhere: one group takes its cheapest one, where "none" is cheaper.
    least = int(cheapest.sum()) + int((costs - cheapest)[space.admissible() & adapters].min())
    if total < least:
        optional = any(choice.blk_r == 0 for choice in space.choices)
        ways = ["raise the budget", *([] if optional else ["add 0 to space.ranks"]), "name fewer space.target_modules"]
        raise InputError(
            f"{spelled}: {total:,} {unit} are below the smallest architecture of this search space ({least:,}); "
            f"{', '.join(ways[:-1])} or {ways[-1]}."
        )
