"""Where a pretrained model comes from: the packaged demo, a local folder, or the Hugging Face hub."""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from morenas.base.errors import InputError
from morenas.base.files import read_object
from morenas.base.hub import Need, require_hub
from morenas.models.sizes import check_sizes

DEMO = "demo"
PICKLE = b"\x80"  # its first byte
WAYS_OUT = (
    "use local files (model.name_or_path=<folder> with config.json, weights and tokenizer) "
    "or the packaged model (+task=demo)"
)

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
REVERSIBLE = ("reformer",)
_ADAPTER = "adapter_config.json"
_JSON = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""What transformers reads of a folder beside config.json, where it is there; its errors come late and name no file."""
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
_HUB_ID = re.compile(r"(?!\.{1,2}/)[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class ModelSource:
    """A place that ``from_pretrained`` reads.

    Attributes:
        name: What the user wrote.
        location: What ``from_pretrained`` gets: a folder or a hub name.
        weights: Weight files of a local folder; empty for the hub.
        trusted: Whether code that the model's folder brings may run.
    """

    name: str
    location: str
    weights: tuple[Path, ...] = ()
    trusted: bool = False

    @property
    def local(self) -> bool:
        """Whether the model is in a folder of this machine."""
        return bool(self.weights)

    @property
    def options(self) -> dict[str, Any]:
        """What every ``from_pretrained`` gets; without a word about trust, transformers would ask on a terminal."""
        return {"local_files_only": self.local, "trust_remote_code": self.trusted}


def resolve_model(name_or_path: str, trust_remote_code: bool = False) -> ModelSource:
    """Find a model and check that it can be loaded, before anything heavy is imported.

    Args:
        name_or_path: ``"demo"``, a folder, or a name on the hub.
        trust_remote_code: Whether code that the model's folder brings may run.
    Raises:
        InputError: If the folder is missing or lacks config, weights or tokenizer, if its weights are cut
            short, or if the hub is needed and out of reach.
    """
    if name_or_path == DEMO:
        return _folder(name_or_path, Path(str(files("morenas") / "assets" / "demo")))
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return replace(_folder(name_or_path, path), trusted=trust_remote_code)
    if path.exists():
        raise InputError(
            f"model.name_or_path={name_or_path!r} is a file; name the folder that holds config.json, "
            "weights and tokenizer."
        )
    if not _HUB_ID.fullmatch(name_or_path):
        raise InputError(
            f"model.name_or_path={name_or_path!r} is no folder here and no name on the Hugging Face hub "
            "('name' or 'owner/name'); "
            f"{WAYS_OUT}."
        )
    if (need := hub_need(name_or_path)) is not None:
        require_hub(need)
    return ModelSource(name_or_path, name_or_path, trusted=trust_remote_code)


def cannot_load(source: ModelSource, what: str, error: Exception, causal: bool = False) -> InputError:
    """The error of a model that a library does not load, in one line."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    kind = "causal language model" if causal else "text classifier"
    if not source.trusted and "trust_remote_code" in str(error):
        return InputError(
            f"Model '{source.name}': its {what} needs code that the model's own folder brings, and morenas runs none. "
            "Where you have read that code and trust it, set model.trust_remote_code=true (in an export "
            "trust_remote_code=true). Else choose a model of a type that transformers knows."
        )
    return InputError(f"Model '{source.name}': its {what} cannot be loaded as a {kind}: {reason} To go on, {WAYS_OUT}.")


def check_type(name: str, model_type: Any) -> None:
    """Refuse a type of model in whose layers no adapter could learn.

    Raises:
        InputError: If its layers are reversible: they compute gradients themselves, and where all that comes in is
            frozen, none.
    """
    if model_type in REVERSIBLE:
        raise InputError(
            f"Model '{name}': is a {model_type}, whose reversible layers give adapters on frozen weights no gradient, "
            "LoRA's neither; choose a model of another type."
        )


def hub_need(name_or_path: str) -> Need | None:
    """What a model needs of the hub, or ``None`` where it needs nothing."""
    here = name_or_path == DEMO or Path(name_or_path).expanduser().exists()
    if here or not _HUB_ID.fullmatch(name_or_path):
        return None
    return Need("model", name_or_path, "model.name_or_path=<folder with config.json, weights and tokenizer>")


def _folder(name: str, path: Path) -> ModelSource:
    if not (path / "config.json").is_file():
        raise _lacks(name, path, "config.json")
    config = read_object(path / "config.json", "model's configuration", foreign=True)
    check_type(name, config.get("model_type"))
    _check_known(name, config)
    weights = next((path / weight for weight in _WEIGHTS if (path / weight).is_file()), None)
    if weights is None:
        raise _lacks(name, path, "weights (model.safetensors or pytorch_model.bin)")
    if not any(next(path.glob(pattern), None) for pattern in _TOKENIZERS):
        raise _lacks(name, path, "a tokenizer (tokenizer.json, vocab.txt, vocab.json or a sentencepiece model)")
    for file in _JSON:
        if (path / file).exists():
            read_object(path / file, "tokenizer's file", foreign=True)
    if (path / _ADAPTER).exists():
        raise InputError(
            f"Model '{name}': the folder {path} holds an adapter too ({_ADAPTER}), which transformers would put onto "
            "the model without a word; merge it into the model, or move its files to a folder of their own."
        )
    shards = _shards(weights)
    for shard in shards:
        _check_whole(name, shard)
    check_sizes(name, config, shards)
    return ModelSource(name, str(path), shards)


def _check_known(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a type that transformers does not know, unless the folder brings its code: that is another question."""
    model_type = config.get("model_type")
    if isinstance(model_type, str) and "auto_map" not in config and not _known(model_type):
        raise InputError(
            f"Model '{name}': config.json says model_type={model_type!r:.60}, which this version of transformers does "
            f"not know; correct it, or install a version that does. To go on, {WAYS_OUT}."
        )


def _known(model_type: str) -> bool:
    if (loaded := sys.modules.get("transformers")) is not None:  # a plug-in may have registered a type of its own
        return model_type in loaded.CONFIG_MAPPING
    shipped = _shipped_types()
    return not shipped or f'"{model_type}"' in shipped


@cache
def _shipped_types() -> str:
    """The source in which transformers lists its types: importing it takes seconds, and torch."""
    spec = find_spec("transformers")
    folders = [] if spec is None else spec.submodule_search_locations or []
    return "".join(path.read_text("utf-8") for folder in folders for path in Path(folder).glob("models/auto/*.py"))


def _lacks(name: str, path: Path, what: str) -> InputError:
    return InputError(
        f"Model '{name}': the folder {path} lacks {what}. A model folder is what save_pretrained of model "
        "and tokenizer writes: "
        "config.json, weights and tokenizer side by side."
    )


def _shards(weights: Path) -> tuple[Path, ...]:
    if not weights.name.endswith(".index.json"):
        return (weights,)
    files = read_object(weights, "weight index", {"weight_map": dict})["weight_map"].values()
    wrong = [name for name in files if not isinstance(name, str) or Path(name).name != name or "\0" in name]
    if wrong or not files:
        said = f"names {wrong[0]!r:.60}, which is no file beside it" if wrong else "names no file"
        raise InputError(f"{weights} is no weight index: it {said}; copy the model folder again.")
    return tuple(weights.parent / name for name in sorted(set(files)))


def _check_whole(name: str, shard: Path) -> None:
    if not shard.is_file():
        raise _lacks(name, shard.parent, f"weight file {shard.name}, which its index names")
    if shard.suffix != ".safetensors":
        _check_torch_file(name, shard)
        return
    try:
        # The library compares the header with the file's size: one that was cut or padded is refused.
        with safe_open(shard, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"Model '{name}': {shard} is no safetensors file, is cut short or damaged ({shard.stat().st_size:,} bytes: "
            f"{error}); copy it again."
        ) from error


def _check_torch_file(name: str, shard: Path) -> None:
    """Refuse a file that torch has not written, or not to its end: an archive, or before torch 1.6 a pickle."""
    with shard.open("rb") as file:
        old = file.read(1) == PICKLE
    if not old and not zipfile.is_zipfile(shard):
        raise InputError(
            f"Model '{name}': {shard} is no file of torch's, or is cut short ({shard.stat().st_size:,} bytes); copy it "
            "again."
        )
