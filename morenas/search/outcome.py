"""What a search found, and how it says where that came from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from morenas.models.heads import pretrained_parameters
from morenas.search.acting import acting
from morenas.search.measure import Candidate
from morenas.search.settings import SearchSettings
from morenas.search.worth import Worth
from morenas.selection.race import paired, surely_apart
from morenas.space import Architecture, Budget, Choice, SearchSpace


@dataclass(frozen=True)
class SearchOutcome:
    """What a search found.

    Attributes:
        architecture: Shapes, parameters and how they were found, for ``MoReConfig.from_architecture`` and ``to_json``.
        shapes: Module name to ``(nblocks, blk_r)``; modules without an adapter are absent.
        params: Adapter parameters of ``shapes``, whatever the budget is counted in.
        factors: Trained blocks of each adapter under the cyclic link, for ``morenas.set_factors``.
        head: Trained head parameters by name.
        logits: Final architecture logits, ``(groups, choices)``.
        probs: Final mixing probabilities under the budget, same shape.
        trajectory: Mixing probabilities over time, ``(snapshots, groups, choices)``.
        trajectory_steps: Step of each snapshot: of the weights, and after their last one of the architecture where the
            weights stand still in those.
        candidates: Whole architectures that were measured, in order.
        worth: What it expects to gain over LoRA of equal cost; None where it was not measured.
        steps: Weight steps taken, those of a play-off not counted: fewer than were asked for where a guard stopped it.
        stopped: Why a guard stopped it; empty where none did.
    """

    architecture: Architecture
    shapes: dict[str, Choice]
    params: int
    factors: dict[str, tuple[Tensor, Tensor]]
    head: dict[str, Tensor]
    logits: Tensor
    probs: Tensor
    trajectory: Tensor
    trajectory_steps: list[int]
    candidates: tuple[Candidate, ...]
    worth: Worth | None
    steps: int
    stopped: str = ""


def margin(candidates: Sequence[Candidate]) -> dict[str, float]:
    """By how much what was found is better than the next one, on the batches that both were measured on.

    Returns:
        ``margin``, the runner-up's mean loss less that of what was found, ``margin_error``, the standard error of the
        paired difference, and ``equals``, how many of the others cannot be told from what was found; empty where there
        was no comparison.
    """
    found = [one for one in candidates if one.found]
    others = [one for one in candidates if not one.found]
    if not found or not others:
        return {}
    most = max(len(one.losses) for one in others)
    runner_up = min((one for one in others if len(one.losses) == most), key=lambda one: one.loss)
    difference, error = paired(runner_up.losses, found[0].losses)
    if not math.isfinite(error):
        return {}
    equals = sum(not surely_apart(one.losses, found[0].losses) for one in others)
    return {"margin": difference, "margin_error": error, "equals": equals}


@dataclass(frozen=True)
class Origin:
    """The model that is searched.

    Attributes:
        name: Its name or folder, where it came from one; else its class.
        parameters: Of the pretrained model, its head not counted.
    """

    name: str
    parameters: int

    @classmethod
    def of(cls, model: nn.Module, head: Sequence[str]) -> Origin:
        """Look at a model before anything is put into it."""
        name = str(getattr(model, "name_or_path", "") or type(model).__name__)
        return cls(name, pretrained_parameters(model, head))

    def architecture(
        self,
        shapes: Mapping[str, Choice],
        space: SearchSpace,
        budget: Budget,
        settings: SearchSettings,
        taken: Mapping[str, Any],
    ) -> Architecture:
        """What was found for the model, and how: the settings that acted, and the steps that were taken."""
        found = Architecture.from_shapes(shapes, space.modules, self.name, self.parameters)
        searched = {"choices": [str(choice) for choice in space.choices], "groups": len(space.groups)}
        return replace(found, budget=budget.document(), search={**acting(settings), **taken, **searched})
