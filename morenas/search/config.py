"""What ``python -m morenas.search`` takes on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from morenas.base.settings import one_of
from morenas.finetune.config import Training
from morenas.run.config import RunConfig, TargetKeys
from morenas.run.sections import choice, section
from morenas.search.requests import BudgetSettings, SpaceSettings
from morenas.search.settings import SearchSettings

RELAXATION = ("sharing", "temperature_start", "temperature_end")
TRAINING = ("weight_decay", "max_grad_norm", "ramp", "gradient_accumulation", "shares", "bf16")
"""What a search has in common with the final fine-tune; the section ``training`` says it for both."""
CHOSEN = ("relaxation", "hypergradient", "selection")
"""What has a section of its own, so that it can have settings of its own."""


@dataclass
class SearchKeys:
    """A search; what is left to null follows from the final fine-tune.

    Attributes:
        runs: 1 for one run: the search, and the found adapter trained on from what the search has learnt, at the rate
            where it stands, down to zero. 2 for two: the search, and after it a whole fine-tune with its own ramp.
        length: What the one run costs, search and all, in fine-tunes of as many passes: weight steps, scores,
            architecture steps and what a selection measures. In two runs the search is as long as in one.
        share: Share of the weight steps that is search; the found adapter takes what is left of the length.
        steps: Weight steps of the search, whatever the length; the found adapter then takes ``1 - share`` of it. None
            for those that length and share leave.
        warmup: Fraction of the weight steps before the first architecture step; None for 1, where the start is level
            for 0.2.
        learning_rate: Of the weights, at its peak; None for training.learning_rate.
    """

    runs: int = 1
    length: float = 1.2
    share: float = 0.57
    steps: int | None = None
    warmup: float | None = None
    learning_rate: float | None = None


@dataclass
class ComparisonConfig:
    """The LoRA that is compared.

    Attributes:
        learning_rate: Its learning rate; None for training.learning_rate.
        alpha: Its alpha; None for twice its rank.
        passes: How long it is trained: "equal", for as many steps as the search and the training of what it finds take
            together; or "finetune", for those of a fine-tune.
    """

    learning_rate: float | None = None
    alpha: float | None = None
    passes: str = one_of(("equal", "finetune"), "equal")


ELSEWHERE = (*RELAXATION, *TRAINING, *CHOSEN, "steps", "warmup", "learning_rate", "decay", "seed")
Search = section(SearchSettings, leave=ELSEWHERE, keys=SearchKeys)
Relaxation = section(SearchSettings, only=RELAXATION, keys=choice(SearchSettings, "relaxation"))


@dataclass
class SearchRunConfig(RunConfig):
    """A search, the final fine-tune of what it finds, and a comparison.

    Attributes:
        compare: Fine-tune this beside what was found, at equal parameters: "lora", "none", or "auto": LoRA in the demo.
    """

    space: Any = field(default_factory=section(SpaceSettings, keys=TargetKeys))
    budget: Any = field(default_factory=section(BudgetSettings))
    relaxation: Any = field(default_factory=Relaxation)
    hypergradient: Any = field(default_factory=choice(SearchSettings, "hypergradient"))
    selection: Any = field(default_factory=choice(SearchSettings, "selection"))
    search: Any = field(default_factory=Search)
    training: Any = field(default_factory=Training)
    compare: str = one_of(("auto", "none", "lora"), "auto")
    comparison: ComparisonConfig = field(default_factory=ComparisonConfig)
