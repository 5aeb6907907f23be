"""What every run takes on the command line, whatever its stages: one field a key, each with what it means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from morenas.base.kinds import POOLINGS
from morenas.base.settings import door, one_of
from morenas.models.weights import FrozenWeights
from morenas.run.sections import section
from morenas.tasks.spec import TaskSpec
from morenas.tracking.wandb import WandbTracker


@dataclass
class ModelKeys:
    """The pretrained model.

    Attributes:
        name_or_path: Name on the Hugging Face hub, a local folder, or "demo".
        attn_implementation: How attention is computed: "eager", "sdpa" and others of transformers; None for its own
            choice.
        pooling: What a classifier's head reads of a sequence: "own", as the model does it by itself, for most the first
            token; or "mean" of all tokens, as sentence encoders (MiniLM, mpnet, e5 and others) were trained.
        trust_remote_code: Run code that the model's own folder brings; else a model that needs such code is refused.
    """

    name_or_path: str = MISSING
    attn_implementation: str | None = None
    pooling: str = one_of(POOLINGS, "own")
    trust_remote_code: bool = False


@dataclass
class TargetKeys:
    """The linear layers that adapters may go to.

    Attributes:
        target_modules: "all-linear", "auto" (PEFT's choice for the type of model), a list of names, or a regular
            expression.
        exclude_modules: Of those, the ones that get none: a list of names, or a regular expression.
    """

    target_modules: Any = "all-linear"
    exclude_modules: Any = None


@dataclass
class TrainingKeys:
    """What decides about training beside the settings of the stage that trains.

    Attributes:
        gradient_checkpointing: Compute activations anew in the backward pass: less memory, a third slower.
    """

    gradient_checkpointing: bool = False


Task = section(TaskSpec)
Model = section(FrozenWeights, keys=ModelKeys)
Wandb = section(WandbTracker)


@dataclass
class TrackingConfig:
    """Where metrics go beside the run directory; settings of what is chosen stand beside its name.

    Attributes:
        name: What metrics go to beside the run directory's own files; "local" for nothing.
    """

    name: str = door("tracker", "wandb")
    wandb: Any = field(default_factory=Wandb)  # the settings of W&B, whatever is chosen


@dataclass
class SweepConfig:
    """A sweep (-m), of which every run is a job.

    Attributes:
        again: What becomes of a job whose run is there already, as it is when the line of a sweep is typed again:
            "skip" gives a sweeper the value of a complete run and goes on with a half-done one; "fail" refuses both.
        objective: What a sweeper is given of each job: "value", the main metric on the select split; "adapter_params";
            "seconds", of the whole run; several in this order for one that takes several.
    """

    again: str = one_of(("skip", "fail"), "skip")
    objective: tuple[str, ...] = one_of(("value", "adapter_params", "seconds"), ("value",))


@dataclass
class RunConfig:
    """What a search and a fine-tune share.

    Attributes:
        seed: Of every random draw: splits, batches, starts.
        device: What to compute on: cpu, cuda, cuda:<number>, mps, or auto: the first GPU, then mps, then the CPU.
        threads: CPU threads; None for torch's choice.
        plugins: Modules to import first, which register objects of your own.
        resume: Run directory to go on with; takes no other argument.
    """

    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    plugins: list[str] = field(default_factory=list)
    task: Any = field(default_factory=Task)
    model: Any = field(default_factory=Model)
    training: Any = field(default_factory=TrainingKeys)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    resume: str | None = None
