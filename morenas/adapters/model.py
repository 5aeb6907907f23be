"""Put adapters into a model, in PEFT's manner."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft.config import PeftConfig
from peft.tuners.tuners_utils import (
    BaseTuner,
    BaseTunerLayer,
    _maybe_include_all_linear_layers,
    check_target_module_exists,
)
from peft.utils import INCLUDE_LINEAR_LAYERS_SHORTHAND
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn

from morenas.adapters.config import MoReConfig
from morenas.adapters.layer import MoReLayer, MoReLinear
from morenas.adapters.peft_type import PREFIX
from morenas.base.errors import InputError
from morenas.base.linear import is_linear, why_not_linear


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
        if peft_config.shape_of(key) is None:
            return False
        whole = any(re.match(rf"(^|.*\.){name}($|\..*)", key) for name in peft_config.modules_to_save or ())
        if whole and key in peft_config.architecture:
            raise InputError(
                f"MoRe '{key}': the architecture gives it an adapter, and modules_to_save="
                f"{peft_config.modules_to_save} trains it whole; leave it out of one of them."
            )
        return not whole

    def _prepare_model(self, peft_config: PeftConfig, model: nn.Module) -> None:
        """Note which modules stand in several places; leave out of "all-linear" what is no linear layer."""
        super()._prepare_model(peft_config, model)
        places = Counter(id(child) for parent in model.modules() for child in parent._modules.values())
        self._repeated = {child for child, count in places.items() if count > 1}
        assert isinstance(peft_config, MoReConfig)
        if str(peft_config.target_modules).lower() == INCLUDE_LINEAR_LAYERS_SHORTHAND:
            _maybe_include_all_linear_layers(peft_config, model)
            names = peft_config.target_modules or ()
            peft_config.target_modules = {name for name in names if is_linear(_base(model.get_submodule(name)))}  # type: ignore[assignment]

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
        base = _base(target)
        if not is_linear(base):
            raise TypeError(
                f"MoRe '{current_key}' cannot take a Monarch adapter: {why_not_linear(base)}; target linear layers, "
                "and leave others out by exclude_modules."
            )
        # A module that stands elsewhere too goes on there without the adapter, as in PEFT; merging may not reach it.
        own = _same_parameters(target) if id(target) in self._repeated else target
        layer = MoReLinear(own, adapter_name, current_key, peft_config)
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

    def unload(self) -> nn.Module:
        """The frozen model, as it was before it got adapters: what was merged is taken out again."""
        for layer in self.model.modules():
            if isinstance(layer, MoReLayer) and layer.merged:
                layer.unmerge()
        return super().unload()

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """PEFT's hook around every pass; without it PEFT drops the arguments that only LoRA knows, and says nothing."""
        for name in ("adapter_names", "alora_offsets"):
            if kwargs.get(name) is not None:
                raise InputError(
                    f"MoRe does not support {name}; make one adapter active by set_adapter, or convert the adapters "
                    "to LoRA."
                )
        yield

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Refused: the weighted sum of Monarch adapters is in general none of a like shape."""
        raise InputError(
            "MoRe does not support add_weighted_adapter; base_model.set_adapter([...]) lets several adapters add up, "
            "and LoRA, to which they can be converted, has it."
        )


def _base(module: nn.Module) -> nn.Module:
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


def _same_parameters(module: nn.Module) -> nn.Module:
    """A module of the same parameters, which can be given others without a change to the first."""
    twin = copy.copy(module)
    twin._parameters = dict(module._parameters)
    return twin
