"""Which tools read a LoRA as what it is, by what its files hold.

PEFT reads all of it. llama.cpp scales each tensor by the one ``lora_alpha`` over that tensor's own rank, and vLLM all
of them by ``lora_alpha / r``; neither knows ``rank_pattern``, ``alpha_pattern`` or modules that were trained whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open

from morenas.base.errors import InputError, suggest
from morenas.base.files import read_object

SERVERS, PEFT = "servers", "peft"
MIXED = "ranks that differ by module: they would scale them wrongly and not say so"
READERS = (SERVERS, PEFT)
"""Whom a LoRA is written for: vLLM, llama.cpp and PEFT alike, or PEFT alone."""


def check_name_of(for_: str) -> None:
    """Refuse readers that are not known.

    Raises:
        InputError: With the known ones.
    """
    if for_ not in READERS:
        raise InputError(f"for={for_}: choose from {', '.join(READERS)}{suggest(for_, READERS)}.")


def unread(folder: Path) -> tuple[str, ...]:
    """What of a LoRA vLLM and llama.cpp do not read, in words; empty where they read all of it."""
    config = read_object(folder / "adapter_config.json", "adapter's configuration")
    with safe_open(folder / "adapter_model.safetensors", "np") as tensors:
        whole = [name for name in tensors.keys() if ".lora_" not in name]  # noqa: SIM118  no mapping
    found = [
        (_mixed(config), MIXED),
        (config.get("use_rslora"), "rsLoRA's scale, which llama.cpp does not know"),
        (config.get("use_dora"), "DoRA's magnitudes"),
        (config.get("modules_to_save"), f"the trained head ({', '.join(config.get('modules_to_save') or ())})"),
        (config.get("bias", "none") != "none", "trained biases"),
        (_holds_embeddings(config, whole), "the embeddings of a vocabulary that was resized"),
    ]
    return tuple(words for there, words in found if there)


def way_out(unread: tuple[str, ...]) -> str:
    """What to export for servers instead of what they do not read."""
    return "export it again with for=servers" if unread == (MIXED,) else "for them, export with to=merged"


def _mixed(config: dict[str, Any]) -> bool:
    return bool(config.get("rank_pattern") or config.get("alpha_pattern"))


def _holds_embeddings(config: dict[str, Any], whole: list[str]) -> bool:
    heads = tuple(config.get("modules_to_save") or ())
    return any(name.endswith(".weight") and not any(f".{head}." in name for head in heads) for name in whole)
