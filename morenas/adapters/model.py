"""Put adapters into a model, in PEFT's manner."""

from __future__ import annotations

from typing import Any

import torch
from peft.config import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_target_module_exists
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn
from transformers.pytorch_utils import Conv1D

from morenas.adapters.config import MoReConfig
from morenas.adapters.layer import MoReLayer, MoReLinear
from morenas.adapters.register import PREFIX


class MoReModel(BaseTuner):
    """A model with Monarch adapters; made by ``peft.get_peft_model(model, MoReConfig(...))``."""

    prefix: str = PREFIX
    tuner_layer_cls = MoReLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING  # type: ignore[assignment]

    @staticmethod
    def _check_target_module_exists(peft_config: PeftConfig, key: str) -> Any:
        assert isinstance(peft_config, MoReConfig)
        if peft_config.architecture is None:
            return check_target_module_exists(peft_config, key)
        # PEFT shortens long lists of targets to endings; the architecture stays exact.
        return peft_config.shape_of(key) is not None

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        assert isinstance(peft_config, MoReConfig)
        if isinstance(target, MoReLayer):
            target.update_layer(adapter_name, current_key, peft_config)
            return
        base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        if not isinstance(base, torch.nn.Linear | Conv1D):
            raise TypeError(
                f"MoRe '{current_key}': a {type(base).__name__} cannot take a Monarch adapter; "
                "target torch.nn.Linear or transformers' Conv1D."
            )
        layer = MoReLinear(target, adapter_name, current_key, peft_config)
        if adapter_name not in self.active_adapters:
            # A further adapter is not trained until it is made the active one.
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        if isinstance(new_module, MoReLayer):
            super()._replace_module(parent, child_name, new_module, child)
        else:
            # On unloading PEFT also hands ``weight`` over, which a trained head of several layers does not have.
            setattr(parent, child_name, new_module)
