"""The pretrained model of a run, at most once in memory."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import numpy as np

from morenas.base.seeds import derive
from morenas.models import Pretrained, load_pretrained
from morenas.models.weights import FrozenWeights
from morenas.run.config import RunConfig
from morenas.run.sections import fill
from morenas.tasks.load import Task


class BaseModel:
    """Loads a run's pretrained model with its fresh head, the same every time, on the device to compute on.

    A search gives the model back as it came; a fine-tune changes what it takes, and whoever asks next gets a new one.
    """

    def __init__(self, config: RunConfig, task: Task, device: str) -> None:
        self.config, self.task, self.device = config, task, device
        self._loaded: Pretrained | None = None

    def get(self) -> Pretrained:
        """The model, to be given back as it came."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def take(self) -> Pretrained:
        """The model, to be changed."""
        taken, self._loaded = self.get(), None
        return taken

    def _load(self) -> Pretrained:
        gc.collect()  # trainers are reference cycles: the model that was taken before would live on in one
        model, weights = self.config.model, frozen_weights(self.config, self.device)
        regression = self.task.spec.kind == "regression"
        pretrained = load_pretrained(
            model.name_or_path,
            self.task.num_labels,
            self.task.label_names,
            self.task.spec.kind,
            derive(self.config.seed, "head"),
            model.attn_implementation,
            weights,
            model.pooling,
            model.trust_remote_code,
            float(np.mean(self.task.search_train["label"])) if regression else 0.0,
        )
        loaded: Any = pretrained.model
        if self.task.spec.causal:
            loaded.config.use_cache = False  # in training keys and values would be kept twice; generation asks for it
        if self.config.training.gradient_checkpointing:
            loaded.gradient_checkpointing_enable({"use_reentrant": False})
        if weights.device_map is None:
            loaded.to(self.device)
        return pretrained


def frozen_weights(config: RunConfig, device: str) -> FrozenWeights:
    """The model section of a config; quantized weights are made where they stay."""
    weights = fill(FrozenWeights, config.model)
    return replace(weights, device_map=device) if weights.device_map is None and weights.quantized else weights
