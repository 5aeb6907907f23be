"""Give adapters factors that were trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from morenas.adapters.layer import MoReLayer
from morenas.base.errors import InputError


def more_layers(model: nn.Module, adapter_name: str = "default") -> dict[str, MoReLayer]:
    """The layers of a PEFT model that hold an adapter, by module name relative to the task model."""
    return {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if isinstance(module, MoReLayer) and adapter_name in module.morenas_first
    }


@torch.no_grad()
def set_factors(model: nn.Module, factors: Mapping[str, tuple[Tensor, Tensor]], adapter_name: str = "default") -> None:
    """Copy ``(first, second)`` into the adapters of a PEFT model.

    Args:
        model: From ``get_peft_model``.
        factors: Module name, relative to the task model, to factors; modules left out keep theirs.
    Raises:
        InputError: If a module has no such adapter, or the shapes differ.
    """
    layers = more_layers(model, adapter_name)
    for name, pair in factors.items():
        if name not in layers:
            raise InputError(f"Factors of '{name}': the model has no adapter '{adapter_name}' there.")
        layer = layers[name]
        own = (layer.morenas_first[adapter_name], layer.morenas_second[adapter_name])
        for parameter, value in zip(own, pair, strict=True):
            if parameter.shape != value.shape:
                raise InputError(
                    f"Factors of '{name}': shape {tuple(value.shape)} does not fit the adapter's "
                    f"{tuple(parameter.shape)}."
                )
            parameter.copy_(value)
