"""What a training changes in a model: as named tensors and a JSON object, and as a folder for others to load."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from peft import AdaLoraConfig, PeftModel
from peft.tuners.adalora import AdaLoraModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from morenas.base.errors import InputError
from morenas.base.files import whole_directory
from morenas.models import is_causal
from morenas.models.quiet import quiet_transformers

_MOMENTS = ("ipt", "exp_avg_ipt", "exp_avg_unc")


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Return trained parameters and the buffers that belong to the model's state, not copied.

    What modules share, as all layers share the random factors of VeRA, is there once, under its first name.
    """
    tensors = model.state_dict(keep_vars=True)
    first = {id(tensor): name for name, tensor in reversed(tensors.items())}
    return {
        name: tensor
        for name, tensor in tensors.items()
        if first[id(tensor)] == name and (tensor.requires_grad or not isinstance(tensor, nn.Parameter))
    }


@torch.no_grad()
def load_trained_state(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy what ``trained_state`` returned into a model prepared in the same way.

    Raises:
        InputError: If names or shapes differ; the message names ``source``, the file of the state.
    """
    own = trained_state(model)
    differing = [name for name in own.keys() | state.keys() if _shape(own, name) != _shape(state, name)]
    if differing:
        raise InputError(
            f"{source} belongs to another model or method: {len(differing)} tensors differ, such as "
            f"{min(differing)}. Remove it to begin this phase anew."
        )
    for name, tensor in own.items():
        tensor.copy_(state[name])


def allocator_state(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what AdaLoRA keeps beside parameters: averages, and ranks left; empty for other methods."""
    tensors: dict[str, Tensor] = {}
    info: dict[str, Any] = {}
    for adalora in _adalora(model):
        for moment in _MOMENTS:
            tensors |= {f"{moment}/{name}": value for name, value in getattr(adalora.rankallocator, moment).items()}
        info["rank_pattern"] = _config(adalora).rank_pattern
    return tensors, info


def load_allocator_state(model: nn.Module, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
    """Give AdaLoRA back what ``allocator_state`` returned."""
    for adalora in _adalora(model):
        device = next(model.parameters()).device
        for moment in _MOMENTS:
            prefix = f"{moment}/"
            values = {
                name.removeprefix(prefix): value.to(device)
                for name, value in tensors.items()
                if name.startswith(prefix)
            }
            setattr(adalora.rankallocator, moment, values)
        _config(adalora).rank_pattern = info["rank_pattern"]


def _adalora(model: nn.Module) -> Iterator[AdaLoraModel]:
    if isinstance(model, PeftModel) and isinstance(model.base_model, AdaLoraModel):
        yield model.base_model


def _config(adalora: AdaLoraModel) -> AdaLoraConfig:
    return cast(AdaLoraConfig, adalora.peft_config[adalora.trainable_adapter_name])


def _shape(state: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return state[name].shape if name in state else None


def save_adapter(model: nn.Module, directory: str | Path) -> None:
    """Write what was trained as a folder, whole or not at all.

    A model with adapters gives a PEFT adapter, head included (``adapter_config.json``,
    ``adapter_model.safetensors``), for ``PeftModel.from_pretrained``. Without adapters, a model trained as a
    whole is saved as such, for ``from_pretrained``; one of which a part was trained gives that part
    (``trained.safetensors``, names as in the task model).
    """
    with whole_directory(Path(directory)) as folder, quiet_transformers(), warnings.catch_warnings():
        # PEFT doubts the rank 0 that its own AdaLoRA makes
        warnings.filterwarnings("ignore", ".*invalid shape")
        if isinstance(model, PeftModel):
            # with "auto" PEFT would ask the hub whether the vocabulary was resized
            model.save_pretrained(str(folder), save_embedding_layers=False)
        elif isinstance(model, PreTrainedModel) and all(p.requires_grad for p in model.parameters()):
            if is_causal(model):
                model.config.use_cache = True  # off in training alone
            model.save_pretrained(str(folder))
        else:
            state = {name: tensor.detach().cpu().contiguous() for name, tensor in trained_state(model).items()}
            save_file(state, folder / "trained.safetensors")
