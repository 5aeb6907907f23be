"""Whole models to adapt, batches for them, and a training step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from morenas.finetune.attach import attach
from morenas.finetune.methods import Method, Targets
from morenas.models import load_pretrained, target_linears
from morenas.models.heads import find_head
from speed.settings import Bench

Batch = dict[str, Tensor]
RATE = 1e-4


@dataclass(frozen=True)
class Subject:
    """A model to adapt, and the modules that are trained whole beside any adapter."""

    model: PreTrainedModel
    head: tuple[str, ...] = ()

    def targets(self) -> Targets:
        """Every linear layer but the head's."""
        return target_linears(self.model, "all-linear", self.head)

    def on(self, device: str) -> Subject:
        """The same, where it computes."""
        cast(nn.Module, self.model).to(device)
        return self

    def copy(self) -> Subject:
        """Another model of the same weights: one set of them serves all contestants; the head is its own."""
        heads = tuple(f"{name}." for name in self.head)
        shared = {id(p): p for name, p in self.model.named_parameters() if not name.startswith(heads)}
        return Subject(copy.deepcopy(self.model, shared), self.head)

    def adapted(self, method: Method, seed: int) -> nn.Module:
        """A copy with a method's adapters on every target."""
        other = self.copy()
        return attach(other.model, method, other.targets(), other.head, seed, 1)

    def batch(self, size: int, length: int, bench: Bench) -> Batch:
        """Random tokens without padding, and labels for them."""
        generator = torch.Generator().manual_seed(bench.seed)
        tokens = torch.randint(5, self.model.config.vocab_size, (size, length), generator=generator)
        labels = tokens if isinstance(self.model, LlamaForCausalLM) else tokens[:, 0] % 2
        batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}
        return {key: value.to(bench.device) for key, value in batch.items()}


def bert(layers: int, width: int, heads: int, vocabulary: int = 1000) -> Subject:
    """A BERT of random weights."""
    config = BertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        vocab_size=vocabulary,
    )
    model = BertForSequenceClassification(config)
    return Subject(model, find_head(model))


def minilm(bench: Bench) -> Subject:
    """MiniLM-L6: the weights of ``--minilm``, else random ones of the same shape."""
    if bench.minilm is None:
        return bert(layers=6, width=384, heads=12, vocabulary=30522)
    pretrained = load_pretrained(str(bench.minilm), num_labels=2, seed=bench.seed)
    return Subject(pretrained.model, pretrained.head)


def roberta(bench: Bench) -> Subject:
    """The size of RoBERTa-base, random weights."""
    sizes: dict[str, Any] = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
    model = RobertaForSequenceClassification(RobertaConfig(**sizes))
    return Subject(model, find_head(model))


def llama(bench: Bench) -> Subject:
    """A language model of 162 M parameters, random weights; its output embedding stays frozen."""
    sizes: dict[str, Any] = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    return Subject(LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=3072, vocab_size=32000)))


def tiny(bench: Bench) -> Subject:
    """For smoke runs."""
    return bert(layers=1, width=32, heads=2)


SUBJECTS: dict[str, Callable[[Bench], Subject]] = {
    "MiniLM": minilm,
    "RoBERTa-base": roberta,
    "Llama-160M": llama,
    "tiny": tiny,
}


def subject(name: str, bench: Bench) -> Subject:
    """A subject by name, where it computes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(bench.seed)
        found = SUBJECTS[name](bench)
    return found.on(bench.device)


def training_step(model: nn.Module, batch: Batch, bench: Bench) -> Callable[[], None]:
    """Forward, backward, AdamW."""
    model.train()
    optimizer = torch.optim.AdamW(trained(model.parameters()), lr=RATE)

    def step() -> None:
        loss_of(model, batch, bench).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def loss_of(model: nn.Module, batch: Batch, bench: Bench) -> Tensor:
    """The loss of a batch, in the bench's precision."""
    with bench.autocast():
        loss: Tensor = model(**batch).loss
    return loss


def trained(parameters: Any) -> Sequence[nn.Parameter]:
    """Those that need gradients."""
    return [parameter for parameter in parameters if parameter.requires_grad]
