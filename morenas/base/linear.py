"""Which modules are linear maps, so that an adapter beside them can be merged into their weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

QUANTIZERS = ("bitsandbytes.", "torchao.", "transformers.integrations.")
"""Packages whose subclasses of ``nn.Linear`` compute the linear map from weights that are packed."""


def is_linear(module: nn.Module) -> bool:
    """Whether a module is ``nn.Linear`` or GPT-2's ``Conv1D`` and computes what they do.

    A subclass with a forward of its own may compute anything: some routers return tuples. The projection of
    ``nn.MultiheadAttention`` is never called, its weight alone is read: an adapter there would never run.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    if not isinstance(module, nn.Linear | Conv1D) or isinstance(
        module, nn.modules.linear.NonDynamicallyQuantizableLinear
    ):
        return False
    if "forward" in vars(module) and not hasattr(module, "_hf_hook"):  # accelerate's hook calls the class's own
        return False
    owner = next(kind for kind in type(module).__mro__ if "forward" in vars(kind))
    packed = not module.weight.is_floating_point()  # no forward but a quantizer's can use such a weight
    return owner in (nn.Linear, Conv1D) or packed or owner.__module__.startswith(QUANTIZERS)


def why_not_linear(module: nn.Module) -> str:
    """Why a module that is no linear layer takes no adapter, in words that follow its name."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    kind = type(module).__name__
    if not isinstance(module, nn.Linear | Conv1D):
        return f"a {kind} is no torch.nn.Linear and no Conv1D of transformers"
    if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return "nn.MultiheadAttention reads its weight without calling it, so that an adapter there would never run"
    return f"its {kind} has a forward of its own, which may compute more than the linear map"


def features(module: nn.Module) -> tuple[int, int]:
    """``(in_features, out_features)`` of a linear layer; a quantizer may have packed its weight into another shape."""
    from torch import nn

    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    weight: Any = module.weight  # Conv1D keeps it transposed
    return weight.shape[0], weight.shape[1]
