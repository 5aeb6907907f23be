"""How the frozen weights are kept: precision, quantization, and where accelerate puts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from morenas.base.errors import InputError
from morenas.base.settings import check_names, one_of

DTYPES = ("float32", "bfloat16", "float16")
QUANTIZERS = {"bnb_4bit": "bitsandbytes", "bnb_8bit": "bitsandbytes", "int8": "torchao"}
"""Library of each quantization."""


@dataclass(frozen=True)
class FrozenWeights:
    """How the weights of a pretrained model are kept while adapters train beside them.

    Attributes:
        dtype: Precision of the frozen weights; adapters stay in float32.
        quantization: How the frozen weights are quantized. "bnb_4bit" (NF4, double quantization) and "bnb_8bit" are
            bitsandbytes', "int8" is torchao's, of weights alone.
        device_map: How accelerate spreads the model over devices ("auto", "balanced", …); None for one device.

    Raises:
        InputError: If a name is unknown.
    """

    dtype: str = one_of(DTYPES, "float32")
    quantization: str = one_of(("none", *QUANTIZERS), "none")
    device_map: str | None = None

    def __post_init__(self) -> None:
        check_names(self, "model")

    @property
    def quantized(self) -> bool:
        """Whether the weights are no floating-point numbers."""
        return self.quantization != "none"

    def options(self, head: Sequence[str] = ()) -> dict[str, Any]:
        """What ``from_pretrained`` is given.

        Args:
            head: Modules that are trained whole, which no quantization may touch.
        Raises:
            InputError: If the quantization's library is not installed.
        """
        import torch

        chosen: dict[str, Any] = {"dtype": getattr(torch, self.dtype)}
        if self.device_map is not None:
            chosen["device_map"] = self.device_map
        if self.quantized:
            self._require_library()
            chosen["quantization_config"] = self._quantization_config(list(head) or None)
        return chosen

    def _require_library(self) -> None:
        library = QUANTIZERS[self.quantization]
        if find_spec(library) is None:
            raise InputError(
                f"model.quantization={self.quantization} needs {library}, which is not installed: pip install "
                "'morenas[quantized]', or leave the weights as they are (model.quantization=none model.dtype=bfloat16)."
            )

    def _quantization_config(self, kept: list[str] | None) -> Any:
        import torch
        from transformers import BitsAndBytesConfig, TorchAoConfig

        if self.quantization == "bnb_8bit":
            return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
        if self.quantization == "bnb_4bit":
            return BitsAndBytesConfig(
                load_in_4bit=True,
                llm_int8_skip_modules=kept,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=getattr(torch, self.dtype),
            )
        from torchao.quantization import Int8WeightOnlyConfig

        return TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=kept)
