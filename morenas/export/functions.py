"""Export and import as functions: no configuration, no run directory."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor

from morenas.adapters import MoReConfig
from morenas.adapters.lora import BASE, BIAS, Pair, project_pairs, read_pairs
from morenas.adapters.published import from_published as read_published
from morenas.base.errors import InputError
from morenas.base.files import whole_directory
from morenas.export.base import (
    WEIGHTS,
    fill,
    inject,
    load_adapter_base,
    load_base,
    lora_settings,
    put_on,
    read_tensors,
    weights_file,
)
from morenas.export.card import write_card
from morenas.export.forms import Exported, write_lora, write_merged, write_more
from morenas.export.readers import SERVERS
from morenas.export.vocabulary import tokenizer_for
from morenas.models import Pretrained, target_linears
from morenas.monarch import Link
from morenas.space import Architecture

Adapter = PeftModel | str | Path


def to_lora(
    adapter: Adapter,
    out: str | Path,
    *,
    base: str | None = None,
    for_: str = SERVERS,
    max_rank: int | None = None,
    truncate: bool = False,
    trust_remote_code: bool = False,
) -> Exported:
    """Write a MoRe adapter as a LoRA that PEFT loads without morenas, the same function up to rounding.

    Args:
        adapter: A model from ``get_peft_model``, or the folder of a saved MoRe adapter.
        out: Folder to write; must not hold anything.
        base: Name or folder of the base model, for a saved adapter; None for what the adapter names.
        for_: "servers": one rank for all modules, zeros where it is more than needed, so that vLLM, llama.cpp and PEFT
            compute the same. "peft": each module its own rank, which is smaller and which PEFT alone reads.
        max_rank: Largest rank that the server takes.
        truncate: Approximate what is above ``max_rank`` by SVD; the relative errors are returned and on the card.
        trust_remote_code: Run code that the base model's folder brings, where ``adapter`` is a folder.
    Returns:
        What was written: shapes, ranks, errors, and what servers do not read of it.
    Raises:
        InputError: If a rank is above ``max_rank``, the adapter does not fit its base model, PEFT would put the LoRA
            elsewhere, or ``out`` is taken.
    """
    with empty_folder(out) as folder:
        model = _model(adapter, base, trust_remote_code)[0]
        exported = write_lora(model, folder, for_, max_rank, truncate)
        write_card(folder, exported, _base_name(model))
    return exported


def to_merged(
    adapter: Adapter, out: str | Path, *, base: str | None = None, trust_remote_code: bool = False
) -> Exported:
    """Write base model and MoRe adapter as one plain model of transformers; a model that is given stays as it is.

    An adapted layer whose weight is tied to the embedding gets a copy, and the config says so. The tokenizer is written
    too where ``adapter`` is a folder: the one in that folder, or the base model's.

    Args:
        adapter: As for ``to_lora``.
        out: As for ``to_lora``.
        base: As for ``to_lora``.
        trust_remote_code: As for ``to_lora``.
    """
    with empty_folder(out) as folder:
        model, pretrained = _model(adapter, base, trust_remote_code)
        name = _base_name(model)
        exported = write_merged(model if pretrained else copy.deepcopy(model), folder)
        if pretrained:
            tokenizer_for(Path(str(adapter)), pretrained).save_pretrained(str(folder))
        write_card(folder, exported, name)
    return exported


def from_lora(lora: str | Path, architecture: Architecture | str | Path, out: str | Path) -> dict[str, float]:
    """Write the MoRe adapter of an architecture that is nearest to a LoRA, with its head.

    Args:
        lora: Folder of a LoRA that PEFT wrote.
        architecture: Shapes and link, or the ``architecture.json`` that holds them; it must name every module that the
            LoRA changes. Modules that the LoRA leaves alone start at zero.
        out: Folder to write; must not hold anything.
    Returns:
        Module to the relative error: norm of the difference over the norm of the LoRA's matrix.
    Raises:
        InputError: If it is no plain LoRA, lacks a tensor, or does not fit the architecture.
    """
    found = architecture if isinstance(architecture, Architecture) else Architecture.from_json(architecture)
    folder, who = Path(lora), str(lora)
    config = lora_settings(folder)
    pairs, rest = read_pairs(config, read_tensors(weights_file(folder)), who)
    factors, errors = project_pairs(_complete(pairs, found), found.shapes(), Link(found.link))
    more = MoReConfig.from_architecture(
        found,
        modules_to_save=config.modules_to_save,
        bias={lora_word: word for word, lora_word in BIAS.items()}[config.bias],
        base_model_name_or_path=config.base_model_name_or_path or found.base_model,
    )
    with empty_folder(out) as new:
        more.save_pretrained(str(new))
        save_file(_native(factors) | rest, new / WEIGHTS)
        shapes = {n: (s.nblocks, s.blk_r, s.in_features, s.out_features) for n, s in found.modules.items()}
        write_card(
            new,
            Exported("more", config.task_type == "CAUSAL_LM", shapes, errors=errors),
            str(more.base_model_name_or_path),
        )
    return {name: errors[name] for name in pairs}


def from_published(checkpoint: str | Path | Mapping[str, Tensor], base: str, out: str | Path) -> Exported:
    """Write a checkpoint of the paper's own implementation as a MoRe adapter, number for number.

    Args:
        checkpoint: Its ``pytorch_model.bin``, a safetensors file, or the tensors themselves; see
            ``morenas.adapters.published`` for their names.
        base: Name or folder of the model it was trained on.
        out: Folder to write; must not hold anything.
    Returns:
        What was written: shapes.
    Raises:
        InputError: If tensors are missing, extra or of another shape; names each.
    """
    tensors = checkpoint if isinstance(checkpoint, Mapping) else read_tensors(Path(checkpoint))
    who = "Published checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint)
    heads = {name: tensor for name, tensor in tensors.items() if ".blkdiag" not in name}
    with empty_folder(out) as folder:
        pretrained = load_base(base, heads, "classification" if heads else "generation")
        factors, rest = read_published(tensors, target_linears(pretrained.model, ".*"))
        trained = sorted({_owner(name, pretrained.head) for name in rest} | set(pretrained.head))
        shapes = {name: {"nblocks": len(first), "blk_r": first.shape[1]} for name, (first, _) in factors.items()}
        config = MoReConfig(architecture=shapes, link=Link.MONARCH.value, modules_to_save=trained or None)
        model = inject(pretrained.model, config, who)
        fill(model, _native(factors) | {f"{BASE}{name}": tensor for name, tensor in rest.items()}, who)
        exported = write_more(model, folder)
        write_card(folder, exported, base)
    return exported


@contextlib.contextmanager
def empty_folder(out: str | Path) -> Iterator[Path]:
    """A folder that takes the place of ``out`` when it is filled.

    Raises:
        InputError: If ``out`` holds something already, or cannot be written.
    """
    path = Path(out)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise InputError(f"out={out}: there is something already; name a folder that is not there or is empty.")
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(whole_directory(path, replace=False))
        except OSError as error:
            raise InputError(f"out={out}: cannot be written ({error.strerror}); choose another folder.") from error
        yield folder


def _model(adapter: Adapter, base: str | None, trust_remote_code: bool) -> tuple[PeftModel, Pretrained | None]:
    if isinstance(adapter, PeftModel):
        return adapter, None
    pretrained = load_adapter_base(Path(adapter), base, trust_remote_code)
    return put_on(pretrained.model, Path(adapter)), pretrained


def _base_name(model: PeftModel) -> str:
    return str(model.peft_config["default"].base_model_name_or_path or type(model.get_base_model()).__name__)


def _complete(pairs: Mapping[str, Pair], architecture: Architecture) -> dict[str, Pair]:
    """The pairs, zeros for modules of the architecture that have none.

    Raises:
        InputError: If a pair is of another size than the architecture's module.
    """
    complete = dict(pairs)
    for name, shape in architecture.modules.items():
        sizes = (shape.in_features, shape.out_features)
        a, b = complete.setdefault(name, (torch.zeros(1, sizes[0]), torch.zeros(sizes[1], 1)))
        if (a.shape[1], len(b)) != sizes:
            raise InputError(
                f"LoRA to MoRe: '{name}' is {a.shape[1]} -> {len(b)} in the LoRA and {sizes[0]} -> {sizes[1]} in the "
                "architecture; they belong to different models."
            )
    return complete


def _native(factors: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Factors under the names that PEFT saves them by."""
    state = {}
    for name, (first, second) in factors.items():
        state[f"{BASE}{name}.morenas_first"] = first.contiguous()
        state[f"{BASE}{name}.morenas_second"] = second.contiguous()
    return state


def _owner(name: str, heads: tuple[str, ...]) -> str:
    """The module that a tensor belongs to: a head, or its own module."""
    return next((head for head in heads if name.startswith(f"{head}.")), name.rpartition(".")[0])
