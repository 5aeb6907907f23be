"""Make a pretrained model ready to be trained by a method, and count what is trained."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from peft import AdaLoraConfig, LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from morenas.adapters import set_factors
from morenas.adapters.attached import bare_twin, misplaced, weights_of
from morenas.base.errors import InputError
from morenas.finetune.methods import Dora, Head, Method, ShapedMore, Targets, Tuner, method_name
from morenas.models import is_causal

MOVED = frozenset({"gate_proj", "up_proj", "down_proj"})
"""Targets that PEFT takes for those of routed experts."""


class Parameters(NamedTuple):
    """Trained parameters, the head's counted apart."""

    adapter: int
    head: int


def attach(
    model: PreTrainedModel, method: Method, targets: Targets, head: Sequence[str], seed: int, total_steps: int
) -> nn.Module:
    """Add a method's adapters to a model and mark what is trained.

    The global random state is left as it was.

    Args:
        model: A pretrained task model; it is changed in place.
        targets: Modules that adapters go to.
        head: Modules trained whole, with any method.
        seed: Decides the adapters' start.
        total_steps: Optimizer steps of the training to come.
    Returns:
        A ``PeftModel``, or ``model`` itself for methods without adapters.
    Raises:
        InputError: If the method does not fit the targets.
    """
    _check_quantized(model, method)
    config = method.peft_config(targets, head, total_steps)
    if config is None:
        return _without_adapters(model, method, head)
    names = _names(config, targets)
    meant, params = weights_of(model, names), _lora_parameters(config, targets, names)
    with _seeded(seed), _calm():
        try:
            adapted = _adapt(model, config)
        except (ValueError, TypeError, NotImplementedError) as error:
            name = method_name(method)
            raise InputError(f"Method {name} cannot be attached to {type(model).__name__}: {error}") from error
    if words := misplaced(model, meant, params):
        raise InputError(_moved(method, model, names, words))
    if isinstance(method, ShapedMore):
        _inherit(adapted, method)
    return adapted


def check_attachable(model: PreTrainedModel, method: Method, targets: Targets, head: Sequence[str]) -> None:
    """Refuse a method that could not be attached later; the model stays as it is.

    Raises:
        InputError: As of ``attach``.
    """
    with bare_twin(model) as twin:
        attach(twin, method, targets, head, seed=0, total_steps=1)


def count_parameters(model: nn.Module, head: Sequence[str] = ()) -> Parameters:
    """Count what is trained.

    Args:
        model: From ``attach``.
        head: The head's modules; needed for models without adapters.
    """
    prefixes = tuple(f"{name}." for name in head)
    counts = Parameters(adapter=0, head=0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            of_head = ".modules_to_save." in name if isinstance(model, PeftModel) else name.startswith(prefixes)
            part = "head" if of_head else "adapter"
            counts = counts._replace(**{part: getattr(counts, part) + parameter.numel()})
    return counts


def _check_quantized(model: PreTrainedModel, method: Method) -> None:
    """Refuse what PEFT cannot train beside quantized weights, or trains wrongly without a word."""
    if isinstance(method, Tuner) and method.NEEDS_NUMBERS and getattr(model, "is_quantized", False):
        raise InputError(
            f"Method {method_name(method)}: PEFT computes with the frozen weights themselves, which are quantized "
            "here; use model.quantization=none."
        )
    if isinstance(method, Dora) and model.device.type == "cpu" and getattr(model, "is_loaded_in_8bit", False):
        raise InputError(
            "Method dora: PEFT cannot train it on a CPU beside model.quantization=bnb_8bit; use int8, or none."
        )


def _names(config: PeftConfig, targets: Targets) -> list[str]:
    """The targets that a config names: all of them, or those that a rank of zero has left."""
    named: Any = getattr(config, "target_modules", None)
    return [name for name in targets if isinstance(named, str) or named is None or name in named]


def _moved(method: Method, model: nn.Module, names: Sequence[str], words: str) -> str:
    kept = sorted({name.rpartition(".")[2] for name in names} - MOVED)
    return (
        f"Method {method_name(method)}: PEFT does not put its adapters onto the targets of this "
        f"{type(model).__name__}: {words}. On mixtures of experts it moves {', '.join(sorted(MOVED))} to other weights "
        f"(huggingface/peft#3711): leave them out (space.target_modules='[{','.join(kept)}]'), or use "
        "method=more, whose targets it leaves alone."
    )


def _lora_parameters(config: PeftConfig, targets: Targets, names: Sequence[str]) -> dict[str, int] | None:
    """Parameters of each adapter of a LoRA; None for other methods."""
    if type(config) is not LoraConfig:
        return None
    patterns = config.rank_pattern or {}
    ranks = {name: patterns.get(re.escape(name), config.r) for name in names}
    return {name: rank * sum(targets[name]) + config.use_dora * targets[name][1] for name, rank in ranks.items()}


def _without_adapters(model: PreTrainedModel, method: Method, head: Sequence[str]) -> nn.Module:
    model.requires_grad_(not isinstance(method, Head))
    for name in head:
        model.get_submodule(name).requires_grad_(True)
    return model


def _adapt(model: PreTrainedModel, config: PeftConfig) -> PeftModel:
    causal = is_causal(model)
    allocates = isinstance(config, AdaLoraConfig)
    config.task_type = TaskType.CAUSAL_LM if causal else TaskType.SEQ_CLS if allocates else None
    adapted = get_peft_model(model, config)
    # PEFT adds AdaLoRA's orthogonality term to the loss only in a model of a task type, and only where it is trained:
    # with the type in the saved config, the loss of a reloaded adapter would be an AttributeError.
    config.task_type = TaskType.CAUSAL_LM if causal and not allocates else None
    return adapted


def _inherit(adapted: PeftModel, method: ShapedMore) -> None:
    if method.factors:
        set_factors(adapted, method.factors)
    _load_head(adapted, method.head_state)


@torch.no_grad()
def _load_head(adapted: PeftModel, state: Mapping[str, Tensor]) -> None:
    """Copy parameters named as in the task model into the trained copies of their modules."""
    trained = {
        name.removeprefix("base_model.model.").replace(".modules_to_save.default", ""): parameter
        for name, parameter in adapted.named_parameters()
        if ".modules_to_save.default." in name
    }
    if unknown := set(state) - set(trained):
        raise InputError(f"The head to start from has {', '.join(sorted(unknown))}, which are not trained here.")
    for name, value in state.items():
        trained[name].copy_(value)


@contextlib.contextmanager
def _calm() -> Iterator[None]:
    """Silence PEFT's warnings about settings that it then corrects by itself."""
    with warnings.catch_warnings():
        for expected in (
            "fan_in_fan_out is set",
            "Failed to load the CUDA extension",
            "Setting boft_n_butterfly_factor",
        ):
            warnings.filterwarnings("ignore", expected)
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
