"""Tiny classifiers and language models of many families, random weights, and a word-level tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Tokenizer,
    RobertaConfig,
)
from transformers.utils import logging

_TEXT = "a an the cat dog bird fish sees eats likes hates red blue big small fast slow good bad not and or is it"
WORDS = tuple(_TEXT.split())
"""Every word that the tokenizer knows; others become the unknown token."""

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
HIDDEN, INTERMEDIATE, LAYERS, HEADS = 16, 24, 2, 2
CAUSAL = ("gpt2", "llama", "qwen2", "mistral", "gemma", "phi", "gpt_neox", "opt")
"""Families of decoders, as language models and as classifiers."""

NO_PAD_TOKEN = ("gpt2", "llama", "mistral", "phi", "gpt_neox")
"""Families whose tokenizer is saved without a pad token, as the real ones are."""

_SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INTERMEDIATE,
    "max_position_embeddings": 70,
    "pad_token_id": 0,
}
_DISTIL: dict[str, Any] = {
    "vocab_size": _SIZES["vocab_size"],
    "dim": HIDDEN,
    "n_layers": LAYERS,
    "n_heads": HEADS,
}
_GPT2: dict[str, Any] = {
    "vocab_size": _SIZES["vocab_size"],
    "n_embd": HIDDEN,
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_inner": INTERMEDIATE,
}
_RELATIVE: dict[str, Any] = {
    "relative_attention": True,
    "position_buckets": 8,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
}
_DECODER: dict[str, Any] = {
    **_SIZES,
    "num_key_value_heads": 1,
    "pad_token_id": None,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
_EVERY_HEAD_ITS_OWN: dict[str, Any] = {key: value for key, value in _DECODER.items() if key != "num_key_value_heads"}
_OPT: dict[str, Any] = {
    **{key: value for key, value in _EVERY_HEAD_ITS_OWN.items() if key != "intermediate_size"},
    "ffn_dim": INTERMEDIATE,
    "word_embed_proj_dim": HIDDEN,
    "pad_token_id": 0,
}

_CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "bert": lambda: BertConfig(**_SIZES),
    "roberta": lambda: RobertaConfig(**_SIZES, type_vocab_size=1, bos_token_id=2, eos_token_id=3),
    "distilbert": lambda: DistilBertConfig(
        **_DISTIL, hidden_dim=INTERMEDIATE, max_position_embeddings=70, pad_token_id=0
    ),
    "deberta-v2": lambda: DebertaV2Config(**_SIZES, **_RELATIVE),
    "electra": lambda: ElectraConfig(**_SIZES, embedding_size=8),
    "gpt2": lambda: GPT2Config(**_GPT2, n_positions=70, bos_token_id=3, eos_token_id=3),
    "llama": lambda: LlamaConfig(**_DECODER),
    "qwen2": lambda: Qwen2Config(**{**_DECODER, "pad_token_id": 0}),
    "mistral": lambda: MistralConfig(**_DECODER),
    "gemma": lambda: GemmaConfig(**{**_DECODER, "pad_token_id": 0}, head_dim=HIDDEN // HEADS),
    "phi": lambda: PhiConfig(**_EVERY_HEAD_ITS_OWN),
    "gpt_neox": lambda: GPTNeoXConfig(**_EVERY_HEAD_ITS_OWN),
    "opt": lambda: OPTConfig(**_OPT),
}
FAMILIES = tuple(_CONFIGS)


def tiny_config(family: str, **overrides: Any) -> PretrainedConfig:
    """A config of two layers, width 16; Llama and its like have narrower key and value projections."""
    config = _CONFIGS[family]()
    for key, value in overrides.items():
        setattr(config, key, value)
    if kinds := getattr(config, "layer_types", None):
        config.layer_types = kinds[: config.num_hidden_layers]
    return config


def tiny_tokenizer(family: str = "bert") -> PreTrainedTokenizerFast:
    """A word-level tokenizer of ``WORDS`` (Qwen2's goes by letter); encoders get [CLS] and [SEP] added."""
    if family == "qwen2":
        return _letters()
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special: dict[str, Any] = {"unk_token": "[UNK]"}
    if family in CAUSAL:
        special |= {"bos_token": "[CLS]", "eos_token": "[SEP]"}
    else:
        special |= {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
    if family not in NO_PAD_TOKEN:
        special["pad_token"] = "[PAD]"
    inputs = ["input_ids", "attention_mask"] + (["token_type_ids"] if family in ("bert", "electra") else [])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, model_input_names=inputs, **special)


def _letters() -> PreTrainedTokenizerFast:
    """Qwen2's own class, without merges: AutoTokenizer takes no other for a Qwen2 folder."""
    vocabulary = {
        symbol: index for index, symbol in enumerate((*SPECIAL, *"abcdefghijklmnopqrstuvwxyz", "\u0120", "\u010a"))
    }
    return Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[],
        unk_token="[UNK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        pad_token="[PAD]",
        model_max_length=64,
    )


def tiny_classifier(family: str = "bert", num_labels: int = 2, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """A sequence classifier with random weights, in evaluation mode; ``num_labels=1`` regresses."""
    config = tiny_config(family, num_labels=num_labels, **overrides)
    config.problem_type = "regression" if num_labels == 1 else "single_label_classification"
    if config.pad_token_id is None:
        config.pad_token_id = 3  # the eos token
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForSequenceClassification.from_config(config).eval()


def shallow(family: str = "bert", num_labels: int = 2, **overrides: Any) -> PreTrainedModel:
    """A tiny classifier of one layer, for what is no other of two and takes half the time."""
    return tiny_classifier(family, num_labels, **{"num_hidden_layers": 1, **overrides})


def tiny_causal(family: str = "llama", seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """A language model in evaluation mode, its random weights large enough for logits to differ between tokens."""
    config = tiny_config(family, **overrides)
    if config.pad_token_id is None:
        config.pad_token_id = 3  # the eos token
    for name in ("initializer_range", "init_std"):
        if hasattr(config, name):
            setattr(config, name, 0.3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config).eval()


def save_tiny(
    family: str, directory: str | Path, seed: int = 0, num_labels: int | None = None, **overrides: Any
) -> Path:
    """Save model and tokenizer; without ``num_labels`` the pretrained network alone: its head will be new."""
    if num_labels is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModel.from_config(tiny_config(family, **overrides))
    else:
        model = tiny_classifier(family, num_labels, seed, **overrides)
    return _save(model, family, directory)


def save_tiny_causal(folder: str | Path, family: str, seed: int = 0, **overrides: Any) -> Path:
    """Save a language model and its tokenizer."""
    return _save(tiny_causal(family, seed, **overrides), family, folder)


def _save(model: PreTrainedModel, family: str, directory: str | Path) -> Path:
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    model.save_pretrained(directory)
    if bars:
        logging.enable_progress_bar()
    tiny_tokenizer(family).save_pretrained(directory)
    return Path(directory)


def tiny_batch(size: int = 3, length: int = 7, num_labels: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """Token ids, mask (rows of different lengths, padded on the right) and labels, for any family."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(len(SPECIAL), len(SPECIAL) + len(WORDS), (size, length), generator=generator)
    lengths = torch.randint(2, length + 1, (size,), generator=generator)
    mask = (torch.arange(length) < lengths[:, None]).long()
    labels = (
        torch.rand(size, generator=generator)
        if num_labels == 1
        else torch.randint(num_labels, (size,), generator=generator)
    )
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}


def tiny_causal_batch(size: int = 3, length: int = 9, seed: int = 0) -> dict[str, torch.Tensor]:
    """Prompts with their answers, padded on the right; labels are -100 on the prompt and on the padding."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, length + 1, (size, 1), generator=generator)
    prompts = torch.randint(1, 3, (size, 1), generator=generator)
    ids = torch.randint(len(SPECIAL), len(SPECIAL) + len(WORDS), (size, length), generator=generator)
    position = torch.arange(length)
    mask = (position < lengths).long()
    answer = (position >= prompts) & (position < lengths)
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": ids.where(answer, torch.tensor(-100))}


@dataclass(frozen=True)
class Tiny:
    """One model under test: a family as a language model or, without ``causal``, as a classifier."""

    family: str
    causal: bool = True
    options: tuple[tuple[str, Any], ...] = ()
    layers: int = LAYERS

    def __str__(self) -> str:
        return "-".join([self.family, "lm" if self.causal else "classifier", *(name for name, _ in self.options)])

    def model(self, seed: int = 0) -> PreTrainedModel:
        """Made anew at every call, always with the same weights."""
        options = {"num_hidden_layers": self.layers, **dict(self.options)}
        if self.causal:
            return tiny_causal(self.family, seed, **options)
        return tiny_classifier(self.family, seed=seed, **options)

    def batch(self, seed: int = 0) -> dict[str, torch.Tensor]:
        return tiny_causal_batch(seed=seed) if self.causal else tiny_batch(seed=seed)

    def save(self, folder: str | Path) -> Path:
        """Save model and tokenizer."""
        return _save(self.model(), self.family, folder)


LANGUAGE_MODELS = (
    *(Tiny(family) for family in CAUSAL),
    Tiny("llama", options=(("tie_word_embeddings", True),)),
    Tiny("opt", options=(("word_embed_proj_dim", 8),)),  # as OPT-350M: projections around the decoder
)
"""Every decoder as a language model; among them tied and untied embeddings, fused and grouped projections."""

CLASSIFIERS = tuple(Tiny(family, causal=False) for family in FAMILIES)
"""Every family as a classifier."""
