"""Which linear layers of a model adapters may go to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import regex

from morenas.base.errors import InputError, suggest
from morenas.base.linear import features, is_linear, why_not_linear

if TYPE_CHECKING:
    from torch import nn

ALL_LINEAR = "all-linear"
AUTO = "auto"
PATTERN_SECONDS = 1.0  # for one name


def target_linears(
    model: nn.Module, target_modules: str | Sequence[str] = ALL_LINEAR, exclude: Iterable[str] = ()
) -> dict[str, tuple[int, int]]:
    """Map the target modules to their ``(in_features, out_features)``, in module order.

    Args:
        model: A task model. A layer that has an adapter of PEFT already is one target, its insides are none.
        target_modules: ``"all-linear"`` (every linear layer, poolers and output embeddings left out),
            ``"auto"`` (PEFT's defaults for the model type), another string (a regular expression that
            matches the whole name, as in PEFT), or a list of names or name endings.
        exclude: Modules that are trained whole, such as the head; nothing inside them is a target.
    Raises:
        InputError: If nothing matches, a list names what is no linear layer though a subclass of one, or the model type
            has no defaults; names modules that are there.
    """
    layers = _linears(model, tuple(exclude))
    linears = {name: features(layer) for name, layer in layers.items() if is_linear(layer)}
    names = _auto_names(model) if target_modules == AUTO else target_modules
    matches = _matcher(model, names)
    odd = {name: why_not_linear(layer) for name, layer in layers.items() if name not in linears and matches(name)}
    chosen = {name: shape for name, shape in linears.items() if matches(name)}
    if odd and (not chosen or not isinstance(target_modules, str)):
        raise InputError(_odd(names, odd))
    if not chosen:
        raise InputError(_no_match(names, linears))
    return chosen


def _linears(model: nn.Module, exclude: tuple[str, ...]) -> dict[str, nn.Module]:
    """Every layer that computes a linear map, or is a subclass of one that may compute more, outside of ``exclude``.

    A layer that has an adapter of PEFT counts as a whole, as in PEFT: its insides are no targets.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    found: dict[str, nn.Module] = {}
    closed = tuple(exclude)
    for name, module in model.named_modules():
        if any(name == one or name.startswith(one + ".") for one in closed):
            continue
        base = module
        if hasattr(module, "get_base_layer"):
            base, closed = module.get_base_layer(), (*closed, name)
        elif hasattr(module, "original_module"):  # trained as a whole, beside the pretrained one
            closed = (*closed, name)
        if isinstance(base, nn.Linear | Conv1D):
            found[name] = base
    return found


def _matcher(model: nn.Module, names: str | Sequence[str]) -> Callable[[str], bool]:
    if names == ALL_LINEAR:
        outputs = _output_embeddings(model)
        return lambda name: "pooler" not in name.split(".") and name not in outputs
    if isinstance(names, str):
        try:
            pattern = regex.compile(names)
        except regex.error as error:
            raise InputError(
                f"target_modules={names!r} is no regular expression ({error}); a list of names is never read as one."
            ) from error
        return lambda name: _fits(pattern, name)
    endings = tuple(names)
    return lambda name: any(name == ending or name.endswith("." + ending) for ending in endings)


def _fits(pattern: regex.Pattern[str], name: str) -> bool:
    """Whether the whole name fits; a pattern of a file may take time without end."""
    try:
        return pattern.fullmatch(name, timeout=PATTERN_SECONDS) is not None
    except TimeoutError as error:
        raise InputError(
            f"target_modules={pattern.pattern!r}: takes longer than {PATTERN_SECONDS:g} s for '{name}'; write it "
            "without a repetition of a repetition, or give a list of names."
        ) from error


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


def _odd(names: str | Sequence[str], odd: Mapping[str, str]) -> str:
    name, why = next(iter(odd.items()))
    more = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
    return f"target_modules={names!r} names '{name}'{more}: {why}. Name other modules, or use {ALL_LINEAR}."


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
