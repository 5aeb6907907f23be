"""Load the pretrained model of an adapter, and put the adapter onto it; every tensor is accounted for."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from peft import (
    PEFT_TYPE_TO_TUNER_MAPPING,
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import CONFIG_NAME as CONFIG
from peft.utils import SAFETENSORS_WEIGHTS_NAME as WEIGHTS
from peft.utils import WEIGHTS_NAME as OLD_WEIGHTS
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from morenas.adapters import MoReConfig
from morenas.adapters.lora import BASE
from morenas.adapters.peft_type import NAME as MORE
from morenas.base.errors import InputError, one_line
from morenas.base.files import Kinds, check_fields, read_object
from morenas.base.kinds import CAUSAL
from morenas.export.vocabulary import note_carried, resize, saved_embeddings, without_copies
from morenas.models import Pretrained, load_pretrained, resolve_model
from morenas.models.heads import count_labels
from morenas.models.quiet import quiet_transformers
from morenas.run.reading import FinishedRun

LANGUAGE_MODELS = frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
PART = "trained.safetensors"
"""What holds the trained part of a model without adapters, in the folder of a run's adapter."""
LORA_KINDS: dict[str, Kinds] = {
    "r": int,
    "lora_alpha": (int, float),
    "rank_pattern": dict,
    "alpha_pattern": dict,
    "bias": str,
    "task_type": (str, NoneType),
    "base_model_name_or_path": (str, NoneType),
    "auto_mapping": (dict, NoneType),
    "use_rslora": bool,
    "use_dora": bool,
    "fan_in_fan_out": bool,
}
"""Settings of a LoRA that are made use of, and of which type they are."""
LOADS_MODELS = ("SHADOW", "XLORA")
"""Types of PEFT whose configurations name models and adapters to load."""
WRONG = ("Missing", "Extra", "Of another shape")


def load_run_base(run: FinishedRun, base: str | None = None, trust_remote_code: bool = False) -> Pretrained:
    """The pretrained model of a run, with a head of the size that the run trained.

    Args:
        base: Folder or name of the model, where it has moved; None for what the run recorded.
        trust_remote_code: Run code that the model's folder brings. The run's record is not asked: anyone can write one.
    Raises:
        InputError: If it is another model than the run's.
    """
    head = head_tensors(run.adapter)
    pretrained = load_base(base or run.base, head, run.kind, run.label_names, run.pooling, trust_remote_code)
    recorded = run.results["model"]["fingerprint"]
    if pretrained.fingerprint != recorded and "unknown" not in (pretrained.fingerprint, recorded):
        raise InputError(
            f"run={run.path}: its base model '{run.base}' had the fingerprint {recorded[:12]}, and "
            f"'{pretrained.name}' has {pretrained.fingerprint[:12]}: another model. Name the run's own: base=<folder "
            "or name>."
        )
    return pretrained


def load_adapter_base(directory: Path, base: str | None = None, trust_remote_code: bool = False) -> Pretrained:
    """The pretrained model of a PEFT adapter, with a head of the size that the adapter has.

    Args:
        base: Name or folder; None for what the adapter names.
        trust_remote_code: Run code that the model's folder brings.
    Raises:
        InputError: If the adapter names none, or another one than ``base``.
    """
    config = read_config(directory)
    recorded = config.get("base_model_name_or_path")
    check_same_base(str(directory), recorded, base)
    mapping = config.get("auto_mapping") or {}
    causal = config.get("task_type") == "CAUSAL_LM" or mapping.get("base_model_class") in LANGUAGE_MODELS
    kind = "generation" if causal else "classification"
    return load_base(str(base or recorded), head_tensors(directory), kind, trust_remote_code=trust_remote_code)


def load_base(
    name: str,
    head: Mapping[str, Tensor],
    kind: str,
    label_names: Sequence[str] | None = None,
    pooling: str = "own",
    trust_remote_code: bool = False,
) -> Pretrained:
    """A pretrained model with a head of as many labels as a trained one has."""
    num_labels = 0 if kind in CAUSAL else count_labels(resolve_model(name, trust_remote_code), head)
    fitting = list(label_names) if label_names and len(label_names) == num_labels else None
    kind = "regression" if kind == "classification" and num_labels == 1 else kind
    return load_pretrained(name, num_labels, fitting, kind, pooling=pooling, trust_remote_code=trust_remote_code)


def head_tensors(directory: Path) -> dict[str, Tensor]:
    """What a folder holds of modules trained whole, by name in the task model."""
    if (directory / PART).exists():
        return read_tensors(directory / PART)
    if not (directory / CONFIG).exists():
        return {}
    modules = read_config(directory).get("modules_to_save") or []
    prefixes = tuple(f"{BASE}{module}." for module in modules)
    tensors = read_tensors(weights_file(directory))
    return {name.removeprefix(BASE): tensor for name, tensor in tensors.items() if name.startswith(prefixes)}


def read_config(directory: Path) -> dict[str, Any]:
    """The configuration of a saved adapter.

    Raises:
        InputError: If there is none; names the folder below that has one, as PEFT writes it for an adapter of a name.
    """
    if not (directory / CONFIG).exists():
        below = sorted(path.parent.name for path in directory.glob(f"*/{CONFIG}"))
        there = f"; there is one in {', '.join(below)}: name {directory / below[0]}" if below else ""
        raise InputError(f"{directory}: holds no adapter ({CONFIG} is missing){there or '; name its folder'}.")
    config = read_object(directory / CONFIG, "adapter's configuration")
    modules = config.get("modules_to_save")
    if modules is not None and not (isinstance(modules, list) and all(isinstance(name, str) for name in modules)):
        raise InputError(f"{directory / CONFIG}: modules_to_save is no list of names; restore the file.")
    return config


def weights_file(directory: Path) -> Path:
    """The tensors of a saved adapter; a torch file where it was saved with ``safe_serialization=False``."""
    plain, old = directory / WEIGHTS, directory / OLD_WEIGHTS
    return old if old.exists() and not plain.exists() else plain


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
    """Put the Monarch adapter of a folder onto its base model, in evaluation mode, its vocabulary included.

    Raises:
        InputError: If it is no Monarch adapter, does not fit the model, or lacks a tensor or has one too many; names
            each.
    """
    kind = read_config(directory).get("peft_type")
    if kind != MORE:
        raise InputError(f"{directory}: holds an adapter of type {kind}, not {MORE}: a MoRe adapter is needed.")
    tensors = without_copies(read_tensors(weights_file(directory)))
    resize(model, tensors, str(directory))
    return fill(inject(model, _settings(MoReConfig, directory), str(directory)), tensors, str(directory))


def fill(adapted: PeftModel, tensors: Mapping[str, Tensor], who: str) -> PeftModel:
    """Give an adapter its trained tensors, under PEFT's names; the model in evaluation mode.

    Raises:
        InputError: If they are not exactly those that the adapter has; names each.
    """
    expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    check_tensors(who, expected | saved_embeddings(adapted, tensors), tensors)
    note_carried(adapted, tensors)
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
        except Exception as error:  # of any kind: a configuration may hold anything, and PEFT checks little of it
            raise InputError(f"{who}: does not fit {type(model).__name__}: {one_line(error)}") from error


def load_other(model: nn.Module, directory: Path) -> PeftModel:
    """Put an adapter of one of PEFT's own methods onto its base model, in evaluation mode.

    Raises:
        InputError: If its configuration names other models or code, or it does not fit.
    """
    config = read_config(directory)
    kind = str(config.get("peft_type"))
    tuner: Any = dict[Any, Any](PEFT_TYPE_TO_TUNER_MAPPING).get(kind)
    if not (isinstance(tuner, type) and issubclass(tuner, BaseTuner)) or kind in LOADS_MODELS:
        raise InputError(f"{directory}: holds an adapter of type {kind!r:.60}, which has no merged form.")
    if config.get("megatron_config"):
        raise InputError(
            f"{directory}: its {CONFIG} names code of Megatron (megatron_config), and none is run; remove it there."
        )
    with warnings.catch_warnings(), quiet_transformers():
        warnings.simplefilter("ignore")
        try:
            return PeftModel.from_pretrained(model, str(directory)).eval()
        except Exception as error:  # of any kind: what PEFT raises of a wrong configuration shares no base
            raise InputError(
                f"{directory}: does not fit {type(model).__name__} ({one_line(error)}); use the base model it was "
                "trained on, or copy it again."
            ) from error


def lora_settings(directory: Path) -> LoraConfig:
    """The settings of a LoRA that PEFT wrote.

    Raises:
        InputError: If it is no LoRA, or has settings that PEFT does not take.
    """
    kind = read_config(directory).get("peft_type")
    if kind != "LORA":
        raise InputError(f"{directory}: holds an adapter of type {kind!r:.60}, not LORA.")
    found: LoraConfig = _settings(LoraConfig, directory)
    check_fields(vars(found), LORA_KINDS, str(directory / CONFIG))
    return found


def _settings(kind: Any, directory: Path) -> Any:
    try:
        return kind.from_pretrained(str(directory))
    except Exception as error:  # of any kind: what a configuration raises of wrong settings shares no base
        raise InputError(
            f"{directory / CONFIG}: has settings that PEFT does not take ({one_line(error)}); copy it again."
        ) from error


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
