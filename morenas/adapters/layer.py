"""The adapter around one linear layer."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from morenas.adapters.config import MoReConfig
from morenas.base.linear import features
from morenas.monarch import Link, block_sizes, check_divides, init_first_, multiply, to_dense


class MoReLayer(nn.Module, BaseTunerLayer):
    """``y = base(x) + M x`` for every active adapter, M Monarch; around ``nn.Linear`` or GPT-2's ``Conv1D``.

    Factors by adapter name: ``morenas_first`` ``(N, r, ceil(n / N))`` and ``morenas_second`` ``(N, ceil(m / N), r)``.

    The base layer may be quantized, as long as it is a ``nn.Linear`` that knows its feature counts; merging is then
    refused.

    Invariant: no frozen parameter is ever changed. While adapters are merged the base layer has a weight of its own, in
    the place of the frozen one, which other layers may share; unmerging puts the frozen one back.
    """

    adapter_layer_names = ("morenas_first", "morenas_second")
    other_param_names = ("nblocks", "blk_r", "link", "morenas_dropout")

    def __init__(self, base_layer: nn.Module, adapter_name: str, module_name: str, config: MoReConfig) -> None:
        nn.Module.__init__(self)
        self.base_layer = base_layer
        self.nblocks: dict[str, int] = {}
        self.blk_r: dict[str, int] = {}
        self.link: dict[str, Link] = {}
        self.morenas_dropout = nn.ModuleDict()
        self.morenas_first = nn.ParameterDict()
        self.morenas_second = nn.ParameterDict()
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._frozen: list[nn.Parameter] = []  # the weight while it is replaced; in a list, nn.Module leaves it alone
        base = self.get_base_layer()
        self.fan_in_fan_out = isinstance(base, Conv1D)
        self.in_features, self.out_features = features(base)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, module_name, config)

    def update_layer(self, adapter_name: str, module_name: str, config: MoReConfig) -> None:
        """Add an adapter of the shape that ``config`` gives module ``module_name``.

        Raises:
            ValueError: If padding is off and the block count does not divide a feature count.
        """
        shape = config.shape_of(module_name)
        assert shape is not None, module_name
        nblocks, blk_r = shape
        if not config.pad:
            check_divides(module_name, self.in_features, nblocks)
            check_divides(module_name, self.out_features, nblocks)
        width, height = block_sizes(self.in_features, self.out_features, nblocks)
        self.nblocks[adapter_name], self.blk_r[adapter_name] = nblocks, blk_r
        self.link[adapter_name] = Link(config.link)
        self.morenas_dropout[adapter_name] = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self.morenas_first[adapter_name] = nn.Parameter(torch.empty(nblocks, blk_r, width))
        self.morenas_second[adapter_name] = nn.Parameter(torch.empty(nblocks, height, blk_r))
        self.reset_parameters(adapter_name, config.init_weights)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters)

    def reset_parameters(self, adapter_name: str, identity: bool) -> None:
        """Start ``first`` at random and ``second`` at zero, or both at random."""
        init_first_(self.morenas_first[adapter_name])
        if identity:
            nn.init.zeros_(self.morenas_second[adapter_name])
        else:
            init_first_(self.morenas_second[adapter_name])

    def get_delta_weight(self, adapter: str) -> Tensor:
        """What merging adds to the base weight: its shape, the adapter's dtype."""
        delta = to_dense(
            self.morenas_first[adapter],
            self.morenas_second[adapter],
            self.link[adapter],
            self.in_features,
            self.out_features,
        )
        return delta.T if self.fan_in_fan_out else delta

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Give the base layer the sum of its weight and the adapters; the frozen weight is kept beside it.

        Args:
            safe_merge: Refuse a merged weight that is not finite.
            adapter_names: Adapters to merge; None for the active ones.
        Raises:
            TypeError: If the base weight is quantized, or computed from other parameters at every pass.
            ValueError: If ``safe_merge`` and the result is not finite; the weight is then unchanged.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) or [] if name in self.morenas_first]
        if not names:
            return
        base = self.get_base_layer()
        parameter = _weight_of(base)
        # never narrower than the base weight, whose precision an adapter of half precision would cost
        merged = parameter.data.to(torch.promote_types(parameter.dtype, self.morenas_first[names[0]].dtype), copy=True)
        for name in names:
            merged += self.get_delta_weight(name)
        if safe_merge and not torch.isfinite(merged).all():
            raise ValueError(f"The merged weight is not finite; one of the adapters {', '.join(names)} is broken.")
        if not self._frozen:
            self._frozen = [parameter]
        base.weight = nn.Parameter(merged.to(parameter.dtype), requires_grad=parameter.requires_grad)
        self.merged_adapters.extend(names)

    def unmerge(self) -> None:
        """Put the frozen weight back; only where the model was cast or moved since, it is cast and moved too."""
        if not self._frozen:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        base: Any = self.get_base_layer()
        frozen = self._frozen.pop()
        frozen.data = frozen.data.to(base.weight)
        base.weight = frozen
        self.merged_adapters.clear()

    @property
    def frozen_weight(self) -> nn.Parameter:
        """The base layer's own weight, without what is merged."""
        base: Any = self.get_base_layer()
        return self._frozen[0] if self._frozen else base.weight

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Map ``(..., n)`` to ``(..., m)``."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        for name in self.active_adapters:
            if name in self.morenas_first:
                first, second = self.morenas_first[name], self.morenas_second[name]
                inputs = self.morenas_dropout[name](self._cast_input_dtype(x, first.dtype))
                result = multiply(inputs, first, second, self.link[name], self.out_features, plus=result)
        return result

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """PEFT may convert the adapter: a Monarch matrix is a LoRA of rank ``N * r``."""
        return True

    def __repr__(self) -> str:
        return f"morenas.{super().__repr__()}"


def _weight_of(base: nn.Module) -> nn.Parameter:
    """The weight that adapters are merged into.

    Raises:
        TypeError: If it is quantized, or no parameter but computed from some.
    """
    weight = base._parameters.get("weight")
    if weight is None:
        raise TypeError(
            f"The weight of a {type(base).__name__} is computed from other parameters at every pass, as by a weight or "
            "spectral norm, and cannot take up adapters; remove that before adapters are added "
            "(torch.nn.utils.parametrize.remove_parametrizations), or serve the model unmerged."
        )
    if type(weight) is not nn.Parameter or not weight.is_floating_point():  # torchao's say they are floats
        raise TypeError(
            f"A base weight kept as {type(weight).__name__} of {weight.dtype} cannot take up adapters; load the model "
            "without quantization."
        )
    return weight


class MoReLinear(MoReLayer):
    """The layer under a name by which PEFT's "all-linear" knows it for a second adapter."""
