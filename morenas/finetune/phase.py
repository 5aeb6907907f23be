"""``python -m morenas.finetune``: fine-tune a found architecture, or a baseline, in the same harness."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from morenas.base.errors import InputError
from morenas.base.kinds import CAUSAL
from morenas.base.registry import registry
from morenas.run.directory import RunDirectory
from morenas.run.needs import check_sources
from morenas.run.schema import FinetuneRunConfig, MethodConfig, MethodName, Quantization

if TYPE_CHECKING:
    from morenas.finetune.methods import Method
    from morenas.run.session import Session

# The parameters each method takes of the method section.
PARAMETERS = {
    MethodName.more: ("dropout",),
    MethodName.lora: ("rank", "alpha", "dropout"),
    MethodName.dora: ("rank", "alpha", "dropout"),
    MethodName.adalora: ("rank", "alpha", "dropout"),
    MethodName.gralora: ("rank", "alpha", "dropout"),
    MethodName.boft: ("block_size", "dropout"),
    MethodName.full: (),
    MethodName.head: (),
}
TARGETS = ("target_modules", "exclude_modules")
ADAPT = set(MethodName) - {MethodName.more, MethodName.full, MethodName.head}  # an architecture brings its own targets


def execute(config: FinetuneRunConfig, directory: RunDirectory) -> float:
    """Fine-tune by the chosen method; return the main metric on the select split."""
    check_architecture_is_named(config)
    check_parameters_belong(config)
    check_parameters(config)
    check_there_is_something_to_train(config)
    check_sources(config)
    from morenas.finetune.stage import fit
    from morenas.run.publish import publish
    from morenas.run.session import session

    with session("finetune", config, directory, config.method.name.value) as run:
        method, targets = build(run, config)
        row = fit(run, method, targets, "finetune", directory.adapter, details=parameters(config))
        return publish(run, "finetune", [row])


def check_architecture_is_named(config: FinetuneRunConfig) -> None:
    """An architecture goes with method=more, and with no other.

    Raises:
        InputError: If it is missing, or given to another method.
    """
    more = config.method.name is MethodName.more
    if more and config.architecture is None:
        raise InputError(
            "method=more fine-tunes a found architecture: add architecture=<run directory>/architecture.json, or "
            "choose a "
            "baseline, method=lora|dora|adalora|gralora|boft|full|head."
        )
    if not more and config.architecture is not None:
        raise InputError(
            f"architecture={config.architecture} goes with method=more, not with method={config.method.name.value}."
        )


def check_parameters(config: FinetuneRunConfig) -> None:
    """PEFT takes a negative dropout for none, and any scale.

    Raises:
        InputError: If a number is out of range.
    """
    dropout, alpha = config.method.dropout, config.method.alpha
    if not 0 <= dropout < 1:
        raise InputError(f"method.dropout={dropout}: must be at least 0 and below 1.")
    if alpha is not None and not 0 < alpha < math.inf:
        raise InputError(f"method.alpha={alpha}: must be above 0 and finite, or null for twice the rank.")


def check_there_is_something_to_train(config: FinetuneRunConfig) -> None:
    """Methods without adapters train weights of the model itself.

    Raises:
        InputError: If there is no head to train, or if weights are quantized.
    """
    name, quantization = config.method.name, config.model.quantization
    if name is MethodName.head and config.task.kind.value in CAUSAL:
        raise InputError(
            f"method=head: a language model, which a task of kind {config.task.kind.value} is for, has no head of the "
            "task's own; choose method=full, or adapters: method=more|lora|dora|adalora|gralora|boft."
        )
    if name in (MethodName.full, MethodName.head) and quantization is not Quantization.none:
        raise InputError(
            f"method={name.value}: trains weights of the model itself, and model.quantization={quantization.value} "
            "keeps them as whole numbers; choose adapters, method=more|lora|dora|adalora|gralora|boft, or "
            "model.quantization=none."
        )


def check_parameters_belong(config: FinetuneRunConfig) -> None:
    """A parameter of another method would be ignored without a word.

    Raises:
        InputError: Naming it, and what the method takes.
    """
    name, defaults = config.method.name, MethodConfig()
    taken = {"name", *PARAMETERS[name]} | (set(TARGETS) if name in ADAPT else set())
    for key, value in vars(config.method).items():
        if key not in taken and value != getattr(defaults, key):
            takes = ", ".join(f"method.{key}" for key in sorted(taken - {"name"})) or "no parameters"
            raise InputError(f"method.{key}={value}: method={name.value} has no use for it; it takes {takes}.")


def parameters(config: FinetuneRunConfig) -> dict[str, Any]:
    """The chosen method's own parameters."""
    return {key: getattr(config.method, key) for key in PARAMETERS[config.method.name]}


def build(run: Session, config: FinetuneRunConfig) -> tuple[Method, dict[str, tuple[int, int]]]:
    """The method and the modules it adapts."""
    from morenas.finetune.methods import More
    from morenas.space import Architecture

    if config.architecture is None:
        targets = run.targets(config.method.target_modules, config.method.exclude_modules)
        return registry("method").build(config.method.name.value, **parameters(config)), targets
    architecture = Architecture.from_json(config.architecture)
    if not architecture.modules:
        raise InputError(f"{config.architecture}: gives no module an adapter; train the head alone: method=head.")
    architecture.check(run.targets(".*", None))
    architecture.to_json(run.directory.architecture)
    run.trackers.architecture(architecture)
    targets = {name: (shape.in_features, shape.out_features) for name, shape in architecture.modules.items()}
    return More(config.method.dropout).with_architecture(architecture), targets
