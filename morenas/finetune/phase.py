"""``python -m morenas.finetune``: fine-tune a found architecture, or a baseline, in the same harness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from morenas.base.errors import InputError
from morenas.base.kinds import CAUSAL
from morenas.base.registry import registry
from morenas.compare.command import table_of
from morenas.finetune.config import FinetuneRunConfig
from morenas.finetune.methods import Full, Head, Method, More
from morenas.finetune.settings import TrainingSettings
from morenas.run.config import TargetKeys
from morenas.run.directory import RunDirectory
from morenas.run.launch import Command
from morenas.run.needs import check_sources
from morenas.run.sections import fill, own_settings

if TYPE_CHECKING:
    from morenas.finetune.methods import Targets
    from morenas.run.session import Session

ABOUT = """\
Fine-tune a found architecture, or a baseline, in the same harness.

    python -m morenas.finetune +task=glue/rte architecture=<run directory>/architecture.json
    python -m morenas.finetune +task=glue/rte method=lora method.rank=32
    python -m morenas.finetune +task=glue/rte method=more method.nblocks=4 method.blk_r=4
    python -m morenas.finetune resume=<run directory>"""


def execute(config: FinetuneRunConfig, directory: RunDirectory) -> float:
    """Fine-tune by the chosen method; return the main metric on the select split."""
    method = chosen_method(config)
    check_method(config, method)
    fill(TrainingSettings, config.training)
    checked = check_sources(config)
    from morenas.finetune.stage import fit
    from morenas.run.publish import publish
    from morenas.run.session import session

    with session("finetune", config, directory, checked, config.method.name) as run:
        shaped, targets = fit_to(run, config, method)
        row = fit(run, shaped, targets, "finetune", directory.adapter, details=settings_of(method))
        return publish(run, "finetune", [row])


COMMAND = Command("finetune", ABOUT, FinetuneRunConfig, execute, table_of)


def chosen_method(config: FinetuneRunConfig) -> Method:
    """The method of a config, with its own settings.

    Raises:
        InputError: If it refuses one of them.
    """
    method: Method = registry("method").build(config.method.name, **own_settings(config.method))
    return method


def settings_of(method: Method) -> dict[str, Any]:
    """A method's own settings, for its row in the results."""
    record: Any = registry("method").record(method)
    return {key: value for key, value in record.items() if key != "name"}


def check_method(config: FinetuneRunConfig, method: Method) -> None:
    """Refuse what a method has no use for, or what it lacks.

    Raises:
        InputError: If shapes are missing, if an architecture is not wanted, if targets would do nothing, or if there
            is nothing to train.
    """
    name, architecture = config.method.name, config.architecture
    if isinstance(method, More):
        check_shapes(method, architecture)
    elif architecture is not None:
        raise InputError(f"architecture={architecture} goes with method=more, not with method={name}.")
    if architecture is not None or isinstance(method, Full | Head):
        for key, default in vars(TargetKeys()).items():
            if (value := getattr(config.method, key)) != default:
                why = "it has no adapters" if architecture is None else "the architecture names its modules"
                raise InputError(f"method.{key}={value}: method={name} has no use for it, {why}; leave it out.")
    if isinstance(method, Full | Head):
        check_there_is_something_to_train(config, method)


def check_shapes(method: More, architecture: str | None) -> None:
    """Monarch adapters take their shapes from an architecture, or have one shape that is set.

    Raises:
        InputError: If both or neither are given.
    """
    if architecture is None and method.nblocks is None:
        raise InputError(
            "method=more fine-tunes a found architecture: add architecture=<run directory>/architecture.json, or give "
            "all modules one shape: method.nblocks=4 method.blk_r=4, or choose a baseline, "
            f"method={_methods_but('more')}."
        )
    for key in ("nblocks", "blk_r", "link"):
        value = getattr(method, key)
        if architecture is not None and value != getattr(More(), key):
            raise InputError(
                f"method.{key}={value}: architecture={architecture} gives the shapes; leave one of them out."
            )


def check_there_is_something_to_train(config: FinetuneRunConfig, method: Full | Head) -> None:
    """Methods without adapters train weights of the model itself.

    Raises:
        InputError: If there is no head to train, or if weights are quantized.
    """
    name, kind, quantization = config.method.name, config.task.kind, config.model.quantization
    if isinstance(method, Head) and kind in CAUSAL:
        raise InputError(
            f"method={name}: a language model, which a task of kind {kind} is for, has no head of the "
            f"task's own; choose method=full, or adapters: method={_methods_but('full', 'head')}."
        )
    if quantization != "none":
        raise InputError(
            f"method={name}: trains weights of the model itself, and model.quantization={quantization} "
            f"keeps them as whole numbers; choose adapters, method={_methods_but('full', 'head')}, or "
            "model.quantization=none."
        )


def _methods_but(*others: str) -> str:
    return "|".join(name for name in registry("method").names() if name not in others)


def fit_to(run: Session, config: FinetuneRunConfig, method: Method) -> tuple[Method, Targets]:
    """The method, in the shapes of an architecture where it takes one, and the modules that it adapts.

    Raises:
        InputError: If the architecture cannot be read, or does not fit the model.
    """
    if config.architecture is None or not isinstance(method, More):
        return method, run.targets(config.method.target_modules, config.method.exclude_modules)
    from morenas.space import Architecture

    architecture = Architecture.from_json(config.architecture)
    if not architecture.modules:
        raise InputError(f"{config.architecture}: gives no module an adapter; train the head alone: method=head.")
    architecture.check(run.targets(".*", None))
    architecture.to_json(run.directory.architecture)
    run.trackers.architecture(architecture)
    targets = {name: (shape.in_features, shape.out_features) for name, shape in architecture.modules.items()}
    return method.with_architecture(architecture), targets
