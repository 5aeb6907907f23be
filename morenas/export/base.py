"""Load the pretrained model of an adapter, and put the adapter onto it; every tensor is accounted for."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import CONFIG_NAME as CONFIG
from peft.utils import SAFETENSORS_WEIGHTS_NAME as WEIGHTS
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from morenas.adapters import MoReConfig
from morenas.adapters.lora import BASE
from morenas.adapters.peft_type import NAME as MORE
from morenas.base.errors import InputError
from morenas.base.files import read_object
from morenas.models import Pretrained, load_pretrained
from morenas.models.quiet import quiet_transformers
from morenas.run.reading import FinishedRun

LANGUAGE_MODELS = frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
PART = "trained.safetensors"
"""What holds the trained part of a model without adapters, in the folder of a run's adapter."""
WRONG = ("Missing", "Extra", "Of another shape")


def load_run_base(run: FinishedRun, base: str | None = None) -> Pretrained:
    """The pretrained model of a run, with a head of the size that the run trained.

    Args:
        base: Folder or name of the model, where it has moved; None for what the run recorded.
    Raises:
        InputError: If it is another model than the run's.
    """
    pretrained = load_base(base or run.base, head_tensors(run.adapter), run.kind, run.label_names, run.pooling)
    recorded = run.results["model"]["fingerprint"]
    if pretrained.fingerprint != recorded and "unknown" not in (pretrained.fingerprint, recorded):
        raise InputError(
            f"run={run.path}: its base model '{run.base}' had the fingerprint {recorded[:12]}, and "
            f"'{pretrained.name}' has {pretrained.fingerprint[:12]}: another model. Name the run's own: base=<folder "
            "or name>."
        )
    return pretrained


def load_adapter_base(directory: Path, base: str | None = None) -> Pretrained:
    """The pretrained model of a PEFT adapter, with a head of the size that the adapter has.

    Args:
        base: Name or folder; None for what the adapter names.
    Raises:
        InputError: If the adapter names none, or another one than ``base``.
    """
    config = read_object(directory / CONFIG, "adapter's configuration")
    recorded = config.get("base_model_name_or_path")
    check_same_base(str(directory), recorded, base)
    mapping = config.get("auto_mapping") or {}
    causal = config.get("task_type") == "CAUSAL_LM" or mapping.get("base_model_class") in LANGUAGE_MODELS
    return load_base(str(base or recorded), head_tensors(directory), "generation" if causal else "classification")


def load_base(
    name: str,
    head: Mapping[str, Tensor],
    kind: str,
    label_names: Sequence[str] | None = None,
    pooling: str = "own",
) -> Pretrained:
    """A pretrained model with a head of as many labels as a trained one has."""
    # The last layer of a head is the narrowest: one output a label.
    num_labels = min((len(tensor) for tensor in head.values() if tensor.ndim), default=2)
    fitting = list(label_names) if label_names and len(label_names) == num_labels else None
    kind = "regression" if kind == "classification" and num_labels == 1 else kind
    return load_pretrained(name, num_labels, fitting, kind, pooling=pooling)


def head_tensors(directory: Path) -> dict[str, Tensor]:
    """What a folder holds of modules trained whole, by name in the task model."""
    if (directory / PART).exists():
        return read_tensors(directory / PART)
    if not (directory / CONFIG).exists():
        return {}
    modules = read_object(directory / CONFIG, "adapter's configuration").get("modules_to_save") or []
    prefixes = tuple(f"{BASE}{module}." for module in modules)
    tensors = read_tensors(directory / WEIGHTS)
    return {name.removeprefix(BASE): tensor for name, tensor in tensors.items() if name.startswith(prefixes)}


def check_same_base(who: str, recorded: Any, given: str | None) -> None:
    """Refuse a base model of another name; folders are compared by their own names, for they may be moved.

    Raises:
        InputError: If the names differ, or there is none.
    """
    if not recorded and not given:
        raise InputError(f"{who}: {CONFIG} names no base model; name it: base=<folder or name>.")
    if recorded and given and Path(recorded).name != Path(given).name:
        raise InputError(
            f"{who}: belongs to the base model '{recorded}', and base={given!r} was given; leave base out, or correct "
            f"base_model_name_or_path in {CONFIG} if it is the same model under another name."
        )


def put_on(model: nn.Module, directory: Path) -> PeftModel:
    """Put the Monarch adapter of a folder onto its base model, in evaluation mode.

    Raises:
        InputError: If it is no Monarch adapter, does not fit the model, or lacks a tensor or has one too many; names
            each.
    """
    kind = read_object(directory / CONFIG, "adapter's configuration").get("peft_type")
    if kind != MORE:
        raise InputError(f"{directory}: holds an adapter of type {kind}, not {MORE}: a MoRe adapter is needed.")
    tensors = read_tensors(directory / WEIGHTS)
    return fill(inject(model, MoReConfig.from_pretrained(str(directory)), str(directory)), tensors, str(directory))


def fill(adapted: PeftModel, tensors: Mapping[str, Tensor], who: str) -> PeftModel:
    """Give an adapter its trained tensors, under PEFT's names; the model in evaluation mode.

    Raises:
        InputError: If they are not exactly those that the adapter has; names each.
    """
    check_tensors(who, get_peft_model_state_dict(adapted, save_embedding_layers=False), tensors)
    set_peft_model_state_dict(adapted, dict(tensors))
    return adapted.eval()


def inject(model: Any, config: MoReConfig, who: str) -> PeftModel:
    """Give a model adapters; the global random state is left as it was.

    Raises:
        InputError: If the config does not fit the model.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return get_peft_model(model, config)
        except (ValueError, TypeError) as error:
            raise InputError(f"{who}: does not fit {type(model).__name__}: {error}") from error


def load_other(model: nn.Module, directory: Path) -> PeftModel:
    """Put an adapter of one of PEFT's own methods onto its base model, in evaluation mode."""
    with warnings.catch_warnings(), quiet_transformers():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(model, str(directory)).eval()


def check_tensors(who: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not exactly those expected.

    Raises:
        InputError: Naming every one that is missing, extra or of another shape.
    """
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    wrong = [
        f"{name} {tuple(found[name].shape)} in place of {tuple(expected[name].shape)}"
        for name in sorted(set(expected) & set(found))
        if found[name].shape != expected[name].shape
    ]
    problems = [
        f"{what}: {', '.join(names)}" for what, names in zip(WRONG, (missing, extra, wrong), strict=True) if names
    ]
    if problems:
        raise InputError(
            f"{who}: its tensors are not those of this model. {'; '.join(problems)}. Use the base model it was "
            "trained on, or copy it again."
        )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, or a torch file of plain tensors.

    Raises:
        InputError: If it is missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"{path}: is missing; copy the whole folder again.")
    try:
        return load_file(path) if path.suffix == ".safetensors" else dict(torch.load(path, "cpu", weights_only=True))
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: cannot be read as tensors ({reason}); copy it again.") from error
