"""What a search found, and how it says where that came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from morenas.base.settings import record
from morenas.models.load import pretrained_parameters
from morenas.search.settings import SearchSettings
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
        trajectory_steps: Weight step of each snapshot. A spectral start whose warm-up is all of the search adds its
            scores' own, after the last step.
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
    steps: int
    stopped: str = ""


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
        steps: int,
        stopped: str,
    ) -> Architecture:
        """What was found for the model, and how."""
        found = Architecture.from_shapes(shapes, space.modules, self.name, self.parameters)
        how = {"steps_taken": steps, "stopped": stopped, "choices": [str(choice) for choice in space.choices]}
        return replace(found, budget=budget.document(), search={**record(settings), **how, "groups": len(space.groups)})
