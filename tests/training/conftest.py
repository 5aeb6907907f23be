"""A tiny task that adapters can learn, and an observer that remembers."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny_models import WORDS, tiny_tokenizer

from morenas.training import FinetuneData


class Recorder:
    """Remembers what a phase reported; may interrupt it."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.steps: list[tuple[int, dict[str, float] | None]] = []
        self.started: list[tuple[str, int, int]] = []
        self.messages: list[str] = []
        self.stop_at = stop_at

    def start(self, phase: str, total_steps: int, done: int = 0) -> None:
        self.started.append((phase, total_steps, done))

    def step(self, phase: str, step: int, metrics: dict[str, float] | None = None) -> None:
        self.steps.append((step, metrics))
        if step == self.stop_at:
            raise KeyboardInterrupt

    def message(self, text: str) -> None:
        self.messages.append(text)

    def finish(self, phase: str) -> None:
        self.started.append((phase, -1, -1))

    def logged(self) -> dict[int, dict[str, float]]:
        return {step: metrics for step, metrics in self.steps if metrics}


def tiny_dataset(rows: int, family: str = "bert", seed: int = 0, regression: bool = False) -> Dataset:
    """Sentences of two to nine words; the label says whether "cat" is among them, or how many are."""
    rng = random.Random(seed)
    texts = [[rng.choice(WORDS) for _ in range(rng.randint(2, 9))] for _ in range(rows)]
    for text in texts[::2]:
        text[rng.randrange(len(text))] = "cat"
    labels: list[Any] = [float(text.count("cat")) if regression else int("cat" in text) for text in texts]
    encoded = tiny_tokenizer(family)([" ".join(text) for text in texts])
    lengths = [len(ids) for ids in encoded["input_ids"]]
    return Dataset.from_dict({**encoded, "labels": labels, "length": lengths})


def accuracy(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {"accuracy": float((logits.argmax(axis=1) == labels).mean())}


def tiny_data(family: str = "bert", train: int = 64, select: int = 32) -> FinetuneData:
    tokenizer = tiny_tokenizer(family)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return FinetuneData(
        tiny_dataset(train, family), tiny_dataset(select, family, seed=1), tokenizer, accuracy, "accuracy"
    )


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Sums of one thread have one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
