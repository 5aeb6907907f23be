"""A tiny task that adapters can learn, ready to fine-tune on, and an observer that remembers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from tiny_models import WORDS, shallow, tiny_tokenizer
from torch import nn

from morenas.finetune.attach import attach
from morenas.finetune.evaluate import ClassifierScorer
from morenas.finetune.loop import FinetuneData
from morenas.finetune.methods import Lora, Method
from morenas.finetune.settings import TrainingSettings
from morenas.models import target_linears
from morenas.models.heads import find_head
from morenas.space import Architecture, ModuleShape

SETTINGS = TrainingSettings(learning_rate=5e-3, max_steps=12, batch_size=8, evals=4)
"""Twelve steps, evaluated after 3, 6, 9 and 12."""


class Recorder:
    """Remembers what a phase reported; interrupts it after step ``stop_at``."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.steps: list[int] = []
        self.logged: dict[int, dict[str, float]] = {}
        self.started: list[tuple[str, int, int]] = []
        self.finished: list[str] = []
        self.messages: list[str] = []

    def start(self, phase: str, total_steps: int, done: int = 0) -> None:
        self.started.append((phase, total_steps, done))

    def step(self, phase: str, step: int, metrics: Mapping[str, float] | None = None) -> None:
        self.steps.append(step)
        if metrics:
            self.logged[step] = dict(metrics)
        if step == self.stop_at:
            raise KeyboardInterrupt

    def message(self, text: str) -> None:
        self.messages.append(text)

    def finish(self, phase: str) -> None:
        self.finished.append(phase)


@cache
def tiny_dataset(rows: int, family: str = "bert", seed: int = 0, regression: bool = False) -> Dataset:
    """Sentences of two to nine words; the label says whether "cat" is among them, or how often."""
    rng = random.Random(seed)
    texts = [[rng.choice(WORDS) for _ in range(rng.randint(2, 9))] for _ in range(rows)]
    for text in texts[::2]:
        text[rng.randrange(len(text))] = "cat"
    labels: list[Any] = [float(text.count("cat")) if regression else int("cat" in text) for text in texts]
    encoded = tiny_tokenizer(family)([" ".join(text) for text in texts])
    lengths = [len(ids) for ids in encoded["input_ids"]]
    return Dataset.from_dict({**encoded, "labels": labels, "length": lengths})


def tiny_data(family: str = "bert", train: int = 40, select: int = 24, regression: bool = False) -> FinetuneData:
    """Encoded examples with the metric that fits them."""
    tokenizer = tiny_tokenizer(family)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    metric = "closeness" if regression else "accuracy"
    return FinetuneData(
        tiny_dataset(train, family, 0, regression),
        tiny_dataset(select, family, 1, regression),
        tokenizer,
        ClassifierScorer(tokenizer, _metrics),
        metric,
    )


def tiny_architecture(family: str = "bert", link: str = "cyclic") -> Architecture:
    """Block counts 1, 2, 4, ranks 1 to 3 and, every fifth time, no adapter, over all linear layers."""
    model = shallow(family)
    modules = {
        name: ModuleShape(2 ** (index % 3), 1 + index % 3, *shape)
        for index, (name, shape) in enumerate(target_linears(model, exclude=find_head(model)).items())
        if index % 5 != 4
    }
    return Architecture("tiny", link, modules, params_fraction=0.1)


def tiny_adapted(
    method: Method | None = None, family: str = "bert", num_labels: int = 2, steps: int = 12, **overrides: Any
) -> nn.Module:
    """A tiny classifier with adapters on all its linear layers; LoRA of rank 2 unless told otherwise."""
    model = shallow(family, num_labels, **overrides)
    head = find_head(model)
    return attach(model, method or Lora(rank=2), target_linears(model, exclude=head), head, seed=0, total_steps=steps)


def _metrics(logits: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
    if logits.shape[1] == 1:
        return {"closeness": -float(np.square(logits[:, 0] - labels).mean())}
    return {"accuracy": float((logits.argmax(axis=1) == labels).mean())}
