"""Whether PEFT put adapters where they were meant to go, and a model to try that on.

On mixtures of experts PEFT rewrites the targets of a LoRA named gate_proj, up_proj and down_proj into the fused weights
of the routed experts, whatever layers were meant (huggingface/peft#3711), and says nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from morenas.adapters.layer import MoReLayer

LISTED = 3


def weights_of(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """The weights that adapters are to stand beside, to be compared by ``misplaced`` when they do."""
    return {name: _base(model.get_submodule(name)).weight for name in names}


def misplaced(task_model: nn.Module, meant: Mapping[str, Tensor], params: Mapping[str, int] | None = None) -> str:
    """In words, how the adapters in a model differ from those that were meant; empty where they do not.

    Args:
        task_model: The model that was given to PEFT.
        meant: From ``weights_of``, before.
        params: Parameters of each adapter; None where they are not known.
    """
    layers = {name: module for name, module in task_model.named_modules() if isinstance(module, BaseTunerLayer)}
    outer = {name: layer for name, layer in layers.items() if not any(name.startswith(f"{one}.") for one in layers)}
    there = {name for name, layer in outer.items() if meant.get(name) is getattr(_frozen(layer), "weight", None)}
    there &= set(meant)
    if wrong := sorted(set(outer) - there):
        missing = sorted(set(meant) - there)
        return f"it adapts {_listed(wrong)}" + (f" in place of {_listed(missing)}" if missing else " too")
    if missing := sorted(set(meant) - there):
        return f"it leaves out {_listed(missing)}"
    return _sizes({name: _count(layer) for name, layer in outer.items()}, params or {})


@contextmanager
def bare_twin(model: nn.Module) -> Iterator[Any]:
    """A model of the same frozen parameters, without the adapters and trained copies of ``model``.

    Nothing is copied but the modules around the parameters, so that a model of any size may be tried with other
    adapters. Which parameters are trained is put back at the end.
    """
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    frozen = [layer.frozen_weight for layer in model.modules() if isinstance(layer, MoReLayer)]
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers(), *frozen)}
    for module in reversed(list(model.modules())):  # what is inside another comes first
        if isinstance(module, BaseTunerLayer):
            memo[id(module)] = copy.deepcopy(_frozen(module), memo)
        elif isinstance(module, AuxiliaryTrainingWrapper):
            memo[id(module)] = copy.deepcopy(module.original_module, memo)
    twin = copy.deepcopy(model, memo)
    vars(twin).pop("peft_config", None)
    try:
        yield twin
    finally:
        for parameter, trained in flags:
            parameter.requires_grad_(trained)


def _sizes(there: Mapping[str, int], meant: Mapping[str, int]) -> str:
    other = [f"{name} {there[name]:,} and not {size:,}" for name, size in meant.items() if there[name] != size]
    return f"its adapters have other numbers of parameters: {_listed(other)}" if other else ""


def _base(module: nn.Module) -> Any:
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


def _frozen(layer: Any) -> nn.Module:
    """The base layer with its frozen weight, though adapters be merged."""
    base: nn.Module = layer.get_base_layer()
    if isinstance(layer, MoReLayer) and layer.merged:
        base = copy.copy(base)
        base._parameters = {**base._parameters, "weight": layer.frozen_weight}
    return base


def _count(layer: Any) -> int:
    """Parameters of an adapter."""
    return sum(value.numel() for name, value in layer.named_parameters() if not name.startswith("base_layer."))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
