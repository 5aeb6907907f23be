"""The adapter around one linear layer."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from morenas.adapters.config import MoReConfig
from morenas.monarch import Link, block_sizes, check_divides, init_first_, multiply, to_dense


class MoReLayer(nn.Module, BaseTunerLayer):
    """``y = base(x) + M x`` for every active adapter, M Monarch; around ``nn.Linear`` or GPT-2's ``Conv1D``.

    Factors by adapter name: ``morenas_first`` ``(N, r, ceil(n / N))`` and ``morenas_second`` ``(N, ceil(m / N), r)``.

    The base layer may be quantized, as long as it is a ``nn.Linear`` that knows its feature counts; merging is then
    refused.

    Invariant: the base layer's parameters are never changed but while adapters are merged, and then the unmerged
    weight is kept and put back as it was, so no number of merges and unmerges moves a bit of it.
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
        self._unmerged_weight: Tensor | None = None
        base = self.get_base_layer()
        self.fan_in_fan_out = isinstance(base, Conv1D)
        self.in_features, self.out_features = _features(base)
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
        """Add adapters to the base weight, keeping the unmerged weight beside it.

        Args:
            safe_merge: Refuse a merged weight that is not finite.
            adapter_names: Adapters to merge; None for the active ones.
        Raises:
            TypeError: If the base weight is quantized.
            ValueError: If ``safe_merge`` and the result is not finite; the weight is then unchanged.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) or [] if name in self.morenas_first]
        if not names:
            return
        parameter = self._base_weight()
        if type(parameter) is not nn.Parameter or not parameter.is_floating_point():  # torchao's say they are floats
            raise TypeError(
                f"A base weight kept as {type(parameter).__name__} of {parameter.dtype} cannot take up adapters; load "
                "the model without quantization."
            )
        # never narrower than the base weight, whose precision an adapter of half precision would cost
        merged = parameter.data.to(torch.promote_types(parameter.dtype, self.morenas_first[names[0]].dtype), copy=True)
        for name in names:
            merged += self.get_delta_weight(name)
        if safe_merge and not torch.isfinite(merged).all():
            raise ValueError(f"The merged weight is not finite; one of the adapters {', '.join(names)} is broken.")
        if self._unmerged_weight is None:
            self._unmerged_weight = parameter.data
        parameter.data = merged.to(parameter.dtype)
        self.merged_adapters.extend(names)

    def unmerge(self) -> None:
        """Put the unmerged weight back, bit for bit unless the model was cast since."""
        if self._unmerged_weight is None:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        parameter = self._base_weight()
        parameter.data = self._unmerged_weight.to(parameter)
        self._unmerged_weight = None
        self.merged_adapters.clear()

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

    def _base_weight(self) -> nn.Parameter:
        weight = self.get_base_layer().weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """PEFT may convert the adapter: a Monarch matrix is a LoRA of rank ``N * r``."""
        return True

    def __repr__(self) -> str:
        return f"morenas.{super().__repr__()}"


def _features(base: nn.Module) -> tuple[int, int]:
    if isinstance(base, Conv1D):
        return base.weight.shape[0], base.weight.shape[1]
    assert isinstance(base, nn.Linear), type(base)  # the model lets nothing else in
    return base.in_features, base.out_features  # its weight may be packed into another shape by a quantizer


class MoReLinear(MoReLayer):
    """The layer under a name by which PEFT's "all-linear" knows it for a second adapter."""
