"""What ``python -m morenas.finetune`` takes on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from morenas.base.settings import door, one_of
from morenas.finetune.settings import TrainingSettings
from morenas.run.config import RunConfig, TargetKeys, TrainingKeys
from morenas.run.sections import section


@dataclass
class FinalTrainingKeys(TrainingKeys):
    """Training of what a search found.

    Attributes:
        init: Where the final adapter starts: "inherit" what the search has trained, or "fresh".
    """

    init: str = one_of(("inherit", "fresh"), "inherit")


@dataclass
class MethodName:
    """The method; settings of its own stand beside its name.

    Attributes:
        name: How the model is adapted.
    """

    name: str = door("method", "more")


@dataclass
class MethodConfig(TargetKeys, MethodName):
    """The method and the modules that it adapts; an architecture brings its own."""


Training = section(TrainingSettings, leave=("seed", "device"), keys=FinalTrainingKeys)


@dataclass
class FinetuneRunConfig(RunConfig):
    """A fine-tune.

    Attributes:
        architecture: The architecture.json of a search, for method=more without a shape of its own.
    """

    training: Any = field(default_factory=Training)
    method: Any = field(default_factory=MethodConfig)
    architecture: str | None = None
