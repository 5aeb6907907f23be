"""Make the method known to PEFT."""

from __future__ import annotations

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import register_peft_method

from morenas.adapters.config import MoReConfig
from morenas.adapters.model import MoReModel
from morenas.adapters.peft_type import NAME, PREFIX, extend_enum


def register() -> None:
    """Register config and model with PEFT; a second call does nothing.

    Raises:
        KeyError: If PEFT itself claims the name.
    """
    if PEFT_TYPE_TO_CONFIG_MAPPING.get(extend_enum()) is not MoReConfig:
        register_peft_method(name=NAME.lower(), config_cls=MoReConfig, model_cls=MoReModel, prefix=PREFIX)
