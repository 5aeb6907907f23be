"""The Monarch adapter as a method of PEFT: config, layer, model; LoRA pairs and published checkpoints to and from it.

Importing this package registers it with PEFT."""

from morenas.adapters.config import MoReConfig
from morenas.adapters.factors import more_layers, set_factors
from morenas.adapters.layer import MoReLayer
from morenas.adapters.model import MoReModel
from morenas.adapters.register import register

register()

__all__ = ["MoReConfig", "MoReLayer", "MoReModel", "more_layers", "set_factors"]
