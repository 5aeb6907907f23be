"""Which linear layers of a model adapters may go to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from morenas.base.errors import InputError, suggest

if TYPE_CHECKING:
    from torch import nn

ALL_LINEAR = "all-linear"
AUTO = "auto"


def target_linears(
    model: nn.Module, target_modules: str | Sequence[str] = ALL_LINEAR, exclude: Iterable[str] = ()
) -> dict[str, tuple[int, int]]:
    """Map the target modules to their ``(in_features, out_features)``, in module order.

    Args:
        model: A task model without adapters.
        target_modules: ``"all-linear"`` (every linear layer, poolers and output embeddings left out),
            ``"auto"`` (PEFT's defaults for the model type), another string (a regular expression that
            matches the whole name, as in PEFT), or a list of names or name endings.
        exclude: Modules that are trained whole, such as the head; nothing inside them is a target.
    Raises:
        InputError: If nothing matches, or the model type has no defaults; names modules that are there.
    """
    linears = _linears(model, tuple(exclude))
    names = _auto_names(model) if target_modules == AUTO else target_modules
    matches = _matcher(model, names)
    chosen = {name: shape for name, shape in linears.items() if matches(name)}
    if not chosen:
        raise InputError(_no_match(names, linears))
    return chosen


def _linears(model: nn.Module, exclude: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    shapes: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules():
        if any(name == head or name.startswith(head + ".") for head in exclude):
            continue
        # nn.MultiheadAttention reads its projection's weight without calling it: an adapter there never runs
        if isinstance(module, nn.Linear) and not isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
            shapes[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            shapes[name] = (module.weight.shape[0], module.weight.shape[1])
    return shapes


def _matcher(model: nn.Module, names: str | Sequence[str]) -> Callable[[str], bool]:
    if names == ALL_LINEAR:
        outputs = _output_embeddings(model)
        return lambda name: "pooler" not in name.split(".") and name not in outputs
    if isinstance(names, str):
        try:
            pattern = re.compile(names)
        except re.error as error:
            raise InputError(
                f"target_modules={names!r} is no regular expression ({error}); a list of names is never read as one."
            ) from error
        return lambda name: pattern.fullmatch(name) is not None
    endings = tuple(names)
    return lambda name: any(name == ending or name.endswith("." + ending) for ending in endings)


def _output_embeddings(model: nn.Module) -> set[str]:
    getter = getattr(model, "get_output_embeddings", None)
    output = getter() if getter is not None else None
    return {name for name, module in model.named_modules() if module is output} if output is not None else set()


def _auto_names(model: nn.Module) -> list[str]:
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS

    model_type = str(getattr(getattr(model, "config", None), "model_type", None))
    if model_type not in DEFAULTS:
        raise InputError(
            f"target_modules=auto: PEFT has no default targets for model type '{model_type}'; "
            "use all-linear, or name the modules."
        )
    names = DEFAULTS[model_type]
    return [names] if isinstance(names, str) else list(names)


def _no_match(names: str | Sequence[str], linears: dict[str, tuple[int, int]]) -> str:
    endings = sorted({name.rpartition(".")[2] for name in linears})
    wanted = [names] if isinstance(names, str) else list(names)
    known = [name for name in (ALL_LINEAR, AUTO, *endings, *linears) if name not in wanted]
    near = next((text for name in wanted if (text := suggest(name, known))), "")
    there = ", ".join(endings[:12]) or "no linear layer outside the head"
    return (
        f"target_modules={names!r} matches no linear layer of the model{near or '.'} There are: {there} "
        f"(a full name: {next(iter(linears), 'none')})."
    )
