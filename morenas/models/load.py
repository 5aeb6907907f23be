"""Load a pretrained causal language model, or a sequence classifier whose head starts from the seed alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from morenas.base.errors import InputError
from morenas.base.kinds import CAUSAL
from morenas.models.heads import find_head, head_config, head_to_come, start_at
from morenas.models.pooling import RECORDED, check_pooling, pool_by_mean
from morenas.models.quiet import quiet_transformers
from morenas.models.source import ModelSource, cannot_load, check_type, resolve_model
from morenas.models.weights import FrozenWeights
from morenas.models.whole import check_base, layers_left_out

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Pretrained:
    """A model ready to be adapted.

    Attributes:
        model: The task model, in evaluation mode, on the CPU, or where its device map put it.
        tokenizer: Its tokenizer; has a pad token, pads on the right.
        name: Name or path that the user gave.
        head: Modules trained with any adapter, in module order: what the task adds to the pretrained network. Empty
            for a causal language model.
        fingerprint: SHA-256 of the local weight files, or the hub's commit.
        notes: Messages for the user about what was decided while loading.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    head: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()


def load_pretrained(
    name_or_path: str,
    num_labels: int,
    label_names: Sequence[str] | None = None,
    kind: str = "classification",
    seed: int = 0,
    attn_implementation: str | None = None,
    weights: FrozenWeights = FrozenWeights(),  # noqa: B008  it is frozen
    pooling: str = "own",
    trust_remote_code: bool = False,
    mean_label: float = 0.0,
) -> Pretrained:
    """Load a model by ``AutoModelForSequenceClassification``, or by ``AutoModelForCausalLM`` for a causal kind.

    The global random state is left as it was.

    Args:
        name_or_path: ``"demo"`` (packaged), a folder, or a name on the hub.
        num_labels: Number of classes; 1 for regression; a causal language model has none.
        label_names: Names of the classes, or ``None``.
        kind: ``"classification"``, ``"regression"``, ``"choice"`` or ``"generation"``; the last two are causal.
        seed: Decides the start of the new head.
        attn_implementation: ``"eager"``, ``"sdpa"``, ... or the library's choice.
        weights: How the frozen weights are kept.
        pooling: "mean" lets the head of an encoder read the mean of all tokens; "own" what the model gives it by
            itself, or what its config records of an earlier "mean".
        trust_remote_code: Run code that the model's own folder brings; else a model that needs such code is refused.
        mean_label: Of a regression: where a new head begins.
    Raises:
        InputError: If the model is missing, incomplete, damaged or of another kind, or if this machine cannot keep its
            weights as ``weights`` says, or if it cannot pool so.
    """
    check_pooling(pooling, kind)
    source, causal = resolve_model(name_or_path, trust_remote_code), kind in CAUSAL
    labels = {} if causal else head_config(num_labels, label_names, kind)
    new_head = head_to_come(source, labels) if weights.quantized and not causal else ()
    options = weights.options(new_head) | labels
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    model, loading = _load_model(source, causal, options, seed)
    check_type(source.name, model.config.model_type)
    tokenizer = _load_tokenizer(source)
    notes = _notes(source, model, loading) + _ensure_pad_token(source, model, tokenizer)
    mismatched = {key for key, *_ in loading["mismatched_keys"]}
    new = set(loading["missing_keys"]) | mismatched
    check_base(source.name, model, new, mismatched)
    if kind == "regression":
        start_at(model, new, mean_label)
    if causal:
        _check_causal(source, model, new)
    if not causal and "mean" in (pooling, getattr(model.config, RECORDED, "own")):
        pool_by_mean(model)
    if weights.quantized:
        _try_out(source, model, weights)
    _limit_to_positions(tokenizer, model)
    head = () if causal else find_head(model, new)
    return Pretrained(model, tokenizer, source.name, head, _fingerprint(source, model), notes)


def is_causal(model: nn.Module) -> bool:
    """Whether a model is a causal language model of transformers."""
    from transformers import PreTrainedModel

    return isinstance(model, PreTrainedModel) and bool(model.can_generate())


def _load_model(
    source: ModelSource, causal: bool, options: dict[str, Any], seed: int
) -> tuple[PreTrainedModel, dict[str, Any]]:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            loaded: Any = kind.from_pretrained(
                source.location,
                **source.options,
                ignore_mismatched_sizes=True,  # a head for other labels is replaced, and a note says so
                output_loading_info=True,
                **options,
            )
            model, loading = loaded
            return model, loading
        except Exception as error:  # unpickling errors among them, which share no base with the others
            what = "model" if "quantization_config" not in options else "quantized model"
            raise cannot_load(source, what, error, causal) from error


def _load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.location, **source.options)
        except Exception as error:  # tokenizers raises bare Exceptions for a damaged file
            raise cannot_load(source, "tokenizer", error) from error
    tokenizer.padding_side = "right"  # position ids of decoders count from the left
    return tokenizer


def _check_causal(source: ModelSource, model: PreTrainedModel, new: set[str]) -> None:
    """Refuse a model that transformers loads as a causal language model without being one.

    A masked language model keeps its own output layer but sees the token that it is to predict; others get a new,
    untrained output layer.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

    if model.config.model_type in MASKED and not model.config.is_decoder:
        raise InputError(
            f"Model '{source.name}': a model of type {model.config.model_type} sees what comes after a token too: it "
            "is no causal language model, which this task needs. Choose one, such as model=llama."
        )
    if new:
        raise InputError(
            f"Model '{source.name}': its weights lack {len(new)} tensors of {type(model).__name__} (the first is "
            f"{min(new)}): it is no causal language model, which this task needs. Choose one, such as model=llama."
        )


def _try_out(source: ModelSource, model: PreTrainedModel, weights: FrozenWeights) -> None:
    """Run the model once: quantized kernels refuse machines and widths only when they are first used."""
    import torch

    try:
        with torch.no_grad():
            ids = torch.ones(1, 2, dtype=torch.long, device=model.device)
            model(input_ids=ids, attention_mask=ids)
    except Exception as error:  # assertions and runtime errors of three libraries
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"Model '{source.name}': this machine cannot compute with its weights kept as "
            f"model.quantization={weights.quantization} ({reason}); use int8, or none with model.dtype=bfloat16."
        ) from error


def _limit_to_positions(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Lower the tokenizer's limit to the model's number of positions, which not every tokenizer knows."""
    from torch import nn

    if not isinstance(tokenizer.model_max_length, int | float):
        raise InputError(
            f"Model '{model.name_or_path}': model_max_length in its tokenizer_config.json is no number "
            f"({tokenizer.model_max_length!r:.60}); restore the file."
        )
    positions = getattr(model.config, "max_position_embeddings", None) or 0
    if positions > 0:  # XLNet has no limit and gives -1
        tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith(("position_embeddings", ".wpe")):
            # RoBERTa's positions start after its padding index.
            usable = module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
            tokenizer.model_max_length = min(tokenizer.model_max_length, usable)


def _notes(source: ModelSource, model: PreTrainedModel, loading: dict[str, Any]) -> tuple[str, ...]:
    notes = []
    if replaced := sorted(key for key, *_ in loading["mismatched_keys"]):
        notes.append(f"'{source.name}' has a head for other labels; started anew: {', '.join(replaced)}.")
    if others := layers_left_out(model, loading["unexpected_keys"]):
        notes.append(
            f"'{source.name}' has weights of more layers than config.json counts; {len(others)} tensors are left out "
            f"(the first is {others[0]})."
        )
    return tuple(notes)


def _ensure_pad_token(
    source: ModelSource, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[str, ...]:
    note: tuple[str, ...] = ()
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise InputError(
                f"Model '{source.name}': its tokenizer has neither a pad nor an eos token, so texts cannot "
                "be batched; "
                "set pad_token in its tokenizer_config.json."
            )
        tokenizer.pad_token = tokenizer.eos_token
        note = (f"'{source.name}' has no pad token: its end-of-text token {tokenizer.eos_token!r} pads.",)
    model.config.pad_token_id = tokenizer.pad_token_id
    return note


def _fingerprint(source: ModelSource, model: PreTrainedModel) -> str:
    if not source.local:
        return getattr(model.config, "_commit_hash", None) or "unknown"
    digest = hashlib.sha256()
    for path in source.weights:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
