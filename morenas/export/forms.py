"""Write an adapter as a LoRA for PEFT, as it is, or merged into its model. Each function fills an empty folder."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from morenas.adapters import MoReConfig, more_layers
from morenas.adapters.lora import BIAS, fit_ranks, lora_config, lora_pairs, lora_state, read_pairs
from morenas.base.errors import InputError
from morenas.base.files import read_object
from morenas.export.base import (
    CONFIG,
    MORE,
    PART,
    WEIGHTS,
    check_tensors,
    load_other,
    lora_settings,
    put_on,
    read_tensors,
)
from morenas.export.readers import PEFT, SERVERS, check_name_of, unread
from morenas.export.reload import check_reload
from morenas.export.vocabulary import carried, resized_to
from morenas.models import Pretrained, is_causal
from morenas.models.quiet import quiet_transformers
from morenas.run.reading import FinishedRun

PEFT_HEADS = ("classifier", "score")
"""What PEFT adds to ``modules_to_save`` of every adapter of task type SEQ_CLS."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        form: "lora", "more" or "merged".
        causal: Whether the base is a language model, not a classifier.
        shapes: Module to ``(nblocks, blk_r, in_features, out_features)``; empty for what is no MoRe adapter.
        ranks: Module to rank of its LoRA; empty for other forms.
        errors: Module to relative error in the Frobenius norm, where it was truncated.
        unread: What of a LoRA vLLM and llama.cpp do not read, in words; PEFT reads all of it.
        vocabulary: Number of embeddings that the base model has to be resized to; None where it is as it was.
    """

    form: str
    causal: bool
    shapes: Mapping[str, tuple[int, int, int, int]] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    vocabulary: int | None = None


def write_lora(
    model: PeftModel, folder: Path, for_: str = SERVERS, max_rank: int | None = None, truncate: bool = False
) -> Exported:
    """Write the Monarch adapter of a PEFT model as a plain LoRA, with the heads and biases that were trained.

    Args:
        for_: "servers": one rank for all modules, which vLLM, llama.cpp and PEFT read alike; "peft": each module's own.
    Raises:
        InputError: If PEFT would read it as something else.
    """
    check_name_of(for_)
    native = _more_config(model)
    pairs, errors = fit_ranks(lora_pairs(model), for_ == SERVERS, max_rank, truncate)
    ranks = {name: len(a) for name, (a, _) in pairs.items()}
    task = task_model(model)
    modules, heads = _module_names(model), list(native.modules_to_save or [])
    config = lora_config(
        ranks,
        modules,
        modules_to_save=heads or None,
        bias=BIAS[native.bias],
        fan_in_fan_out=all(layer.fan_in_fan_out for layer in more_layers(model).values()),
        task_type=_task_type(task, modules, heads, ranks),
        base_model_name_or_path=native.base_model_name_or_path,
    )
    config.auto_mapping = None if config.task_type else _auto_mapping(task)
    config.save_pretrained(str(folder))
    _save(folder / WEIGHTS, lora_state(pairs) | others(model))
    check_reload(model, folder, ranks, exact=not errors)
    return Exported("lora", is_causal(task), shapes_of(model), ranks, errors, unread(folder), resized_to(model))


def write_trained_lora(adapter: Path, task: nn.Module, folder: Path, for_: str = SERVERS) -> Exported:
    """Write a LoRA that a run trained: as it is, or, for servers, with one rank and its scale inside the factors.

    Args:
        adapter: Folder of the trained LoRA.
        task: The model that it belongs to.
    """
    config: Any = lora_settings(adapter)
    odd = config.use_rslora or config.rank_pattern or config.alpha_pattern
    if for_ == PEFT or not odd or config.use_dora:
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(adapter / name, folder / name)
    else:
        pairs, rest = read_pairs(config, read_tensors(adapter / WEIGHTS), str(adapter))
        pairs, _ = fit_ranks(pairs, one_rank=True)
        kept = ("modules_to_save", "bias", "fan_in_fan_out", "task_type", "base_model_name_or_path", "auto_mapping")
        ranks, modules = {name: len(a) for name, (a, _) in pairs.items()}, [name for name, _ in task.named_modules()]
        lora_config(ranks, modules, **{name: getattr(config, name) for name in kept}).save_pretrained(str(folder))
        _save(folder / WEIGHTS, lora_state(pairs) | rest)
    return Exported("lora", is_causal(task), unread=unread(folder))


def write_more(model: PeftModel, folder: Path) -> Exported:
    """Write the native adapter."""
    _more_config(model)
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Left to "auto", PEFT asks the hub whether the vocabulary was resized.
        model.save_pretrained(str(folder), save_embedding_layers=bool(carried(model)))
    return Exported("more", is_causal(task_model(model)), shapes_of(model), vocabulary=resized_to(model))


def write_merged(model: PeftModel, folder: Path) -> Exported:
    """Merge the adapters into their model, in place, and write it as a plain model of transformers."""
    shapes = shapes_of(model)
    untie(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            plain = model.merge_and_unload(safe_merge=True)
        except (ValueError, TypeError) as error:
            raise InputError(f"Export: the adapter cannot be merged: {error}") from error
    write_model(plain, folder)
    return Exported("merged", is_causal(plain), shapes)


def write_model(model: Any, folder: Path) -> None:
    """Write a model of transformers."""
    with quiet_transformers():
        model.save_pretrained(str(folder))


def write_trained_merged(run: FinishedRun, pretrained: Pretrained, folder: Path) -> Exported:
    """Write the model of a run, whatever method trained it, as a plain model of transformers with its tokenizer.

    Args:
        pretrained: The run's base model; it is changed.
    Raises:
        InputError: If the trained tensors do not fit the base model.
    """
    if (run.adapter / CONFIG).exists():
        kind = read_object(run.adapter / CONFIG, "adapter's configuration").get("peft_type")
        load = put_on if kind == MORE else load_other
        exported = write_merged(load(pretrained.model, run.adapter), folder)
    else:
        trained = _with_part if (run.adapter / PART).exists() else _whole
        write_model(trained(pretrained, run.adapter), folder)
        exported = Exported("merged", is_causal(pretrained.model))
    pretrained.tokenizer.save_pretrained(str(folder))
    return exported


def untie(model: PeftModel) -> None:
    """Give adapted layers that share their weight a copy of it.

    An output layer often shares the embedding's weight: an adapter merged into it would change the embedding too.
    """
    owners: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            layer = module.get_base_layer()
            weight = getattr(layer, "weight", None)
            if isinstance(weight, nn.Parameter) and owners.get(id(weight), 0) > 1:
                layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
                _say_untied(task_model(model).config)


def task_model(model: PeftModel) -> Any:
    """The model inside, adapters still in it."""
    return model.base_model.model


def shapes_of(model: nn.Module) -> dict[str, tuple[int, int, int, int]]:
    """Module to ``(nblocks, blk_r, in_features, out_features)`` of its Monarch adapter."""
    return {
        name: (layer.nblocks["default"], layer.blk_r["default"], layer.in_features, layer.out_features)
        for name, layer in more_layers(model).items()
    }


def others(model: PeftModel) -> dict[str, Tensor]:
    """What goes along with the adapters, under PEFT's names: trained heads and biases, resized embeddings."""
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor for name, tensor in state.items() if ".morenas_" not in name} | _biases(model) | carried(model)


def _more_config(model: PeftModel) -> MoReConfig:
    config = model.peft_config.get("default")
    if not isinstance(config, MoReConfig) or len(model.peft_config) > 1:
        held = ", ".join(f"'{name}' of type {one.peft_type}" for name, one in model.peft_config.items())
        raise InputError(f"Export: takes a model with one MoRe adapter named 'default'; this one has {held}.")
    return config


def _module_names(model: PeftModel) -> list[str]:
    """Names of the modules that the task model had before it got adapters."""
    inside = (
        ".base_layer",
        ".morenas_dropout",
        ".morenas_first",
        ".morenas_second",
        ".original_module",
        ".modules_to_save",
    )
    names = (name for name, _ in task_model(model).named_modules())
    return [name for name in names if not any(f"{part}." in f"{name}." for part in inside)]


def _task_type(task: nn.Module, modules: Iterable[str], heads: Iterable[str], targets: Iterable[str]) -> str | None:
    """PEFT's task type, or None where setting it would change which modules are trained and saved."""
    if is_causal(task):
        return "CAUSAL_LM"
    trained = set(heads)
    added = all(name in trained for name in modules if name.endswith(PEFT_HEADS))
    hidden = any(part in PEFT_HEADS for name in targets for part in name.split("."))
    return "SEQ_CLS" if trained and added and not hidden else None


def _biases(model: PeftModel) -> dict[str, Tensor]:
    """Biases that were trained, heads aside; before 0.21 PEFT leaves them out for methods not its own."""
    trained = _more_config(model).bias
    endings = {"none": (), "morenas_only": (".base_layer.bias",), "all": (".bias",)}[trained]
    heads = (".original_module.", ".modules_to_save.")
    state = model.state_dict().items()
    return {name: value for name, value in state if name.endswith(endings) and not any(h in name for h in heads)}


def _auto_mapping(task: nn.Module) -> dict[str, str]:
    return {"base_model_class": type(task).__name__, "parent_library": type(task).__module__}


def _say_untied(config: Any) -> None:
    config.tie_word_embeddings = False
    config.get_text_config().tie_word_embeddings = False


def _save(path: Path, state: Mapping[str, Tensor]) -> None:
    # safetensors refuses tensors that share memory
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}, path)


@torch.no_grad()
def _with_part(pretrained: Pretrained, directory: Path) -> nn.Module:
    """The base model with the part that was trained, such as its head."""
    heads = tuple(f"{name}." for name in pretrained.head)
    everything = pretrained.model.state_dict(keep_vars=True).items()
    # buffers are saved with what was trained
    own = {name: value for name, value in everything if name.startswith(heads) or not isinstance(value, nn.Parameter)}
    trained = read_tensors(directory / PART)
    check_tensors(str(directory / PART), own, trained)
    for name, parameter in own.items():
        parameter.copy_(trained[name])
    return pretrained.model


def _whole(pretrained: Pretrained, directory: Path) -> nn.Module:
    """A model that was trained as a whole."""
    kind: Any = type(pretrained.model)
    model: nn.Module = kind.from_pretrained(str(directory))
    return model
