"""Fine-tune an adapted model; keep the checkpoint that is best on ``select``; survive being killed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from peft.tuners.adalora import AdaLoraModel
from torch import nn
from transformers import (
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME

from morenas.base.errors import InputError, RunError
from morenas.base.files import Kinds, check_fields, read_object, write_json, writing
from morenas.base.seeds import derive
from morenas.finetune.arguments import one_device, trainer_arguments
from morenas.finetune.attach import count_parameters
from morenas.finetune.checkpoints import checkpoint_folder, keep_only, last_checkpoint, seal, verify
from morenas.finetune.evaluate import Scorer
from morenas.finetune.settings import TrainingSettings
from morenas.finetune.trainer import StepTrainer, TrainingDiverged, readable
from morenas.models.quiet import quiet_transformers
from morenas.tasks.encode import EncodedBatches
from morenas.tracking.observer import Observer

LOG_EVERY = 10  # optimizer steps
PROGRESS = "progress.json"


@dataclass(frozen=True)
class FinetuneData:
    """Data of a fine-tune, and how its checkpoints are scored.

    Attributes:
        train: Encoded examples.
        select: Encoded examples by which checkpoints are chosen; never the test set.
        tokenizer: Of the model; pads batches.
        score: Named metrics of a model on encoded examples, higher is better.
        metric: The metric that the best checkpoint is chosen by.
    """

    train: Dataset
    select: Dataset
    tokenizer: PreTrainedTokenizerBase
    score: Scorer
    metric: str


@dataclass(frozen=True)
class FinetuneResult:
    """Result of a fine-tune; the model itself holds the weights of ``best_step``.

    Attributes:
        metrics: On ``select``, at ``best_step``.
        best_step: Optimizer step of the best evaluation, the first of equals.
        steps: Optimizer steps of the whole run.
        history: One entry for each evaluation: step, mean training loss since the last one, metrics on ``select``.
        adapter_params: Trained parameters outside the head.
        head_params: Trained parameters of the head.
    """

    metrics: dict[str, float]
    best_step: int
    steps: int
    history: list[dict[str, float]]
    adapter_params: int
    head_params: int


def finetune(
    model: nn.Module,
    data: FinetuneData,
    settings: TrainingSettings,
    directory: str | Path,
    observer: Observer,
    head: Sequence[str] = (),
    phase: str = "finetune",
) -> FinetuneResult:
    """Train what ``attach`` marked and leave the model with the weights that were best on ``select``.

    Checkpoints go to ``directory`` at every evaluation and every ``settings.checkpoint_every`` steps; the best and
    the last are kept. Called again with the same arguments after a kill, it goes on from the last one, and on a CPU
    ends with the same weights, bit for bit. Called again after its end, it restores the best weights and returns the
    same result. The folder is the caller's to remove.

    Args:
        model: From ``attach``, freshly attached even when resuming.
        directory: Folder of the checkpoints of this fine-tune alone.
        head: The head's modules, for the parameter count of methods without adapters.
        phase: Name for the observer and its metrics.
    Raises:
        InputError: If a checkpoint is damaged or of another run.
        RunError: If the loss is not finite (naming step, learning rate and batch), or a metric gives no number; the
            last good checkpoint stays.
    """
    return _Run(model, data, settings, Path(directory), observer, tuple(head), phase).execute()


class _Run(TrainerCallback):
    """One fine-tune: what it was given, and what it has seen so far."""

    def __init__(
        self,
        model: nn.Module,
        data: FinetuneData,
        settings: TrainingSettings,
        directory: Path,
        observer: Observer,
        head: tuple[str, ...],
        phase: str,
    ) -> None:
        self.model, self.data, self.settings = model, data, settings
        self.directory, self.observer, self.head, self.phase = directory, observer, head, phase
        self.total = settings.total_steps(len(data.train))
        self.eval_steps = settings.eval_steps(self.total)
        self.identity = {
            "settings": {key: value for key, value in asdict(settings).items() if key != "device"},
            "examples": {"train": len(data.train), "select": len(data.select)},
        }
        self.history: list[dict[str, float]] = []
        self.logged_at = 0
        self.loss_since_eval = 0.0

    def execute(self) -> FinetuneResult:
        last = self._find_checkpoint()
        seed = derive(self.settings.seed, "finetune", "batches")
        batches = EncodedBatches(self.data.train, self.data.tokenizer, self.settings.batch_size, seed)
        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        with quiet_transformers(), one_device(self.settings.device):
            arguments = trainer_arguments(self.settings, self.total, self.directory)
            self.trainer = StepTrainer(self.model, arguments, batches, self, self._seal, self.settings.shares)
        self.observer.start(self.phase, self.total, self.logged_at)
        try:
            with quiet_transformers():
                self.trainer.train(resume_from_checkpoint=str(last) if last else None)
        except TrainingDiverged as error:
            raise RunError(self._explain(error, batches)) from error
        self._restore_best()
        self.observer.finish(self.phase)
        return self._result()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let AdaLoRA cut ranks: after the optimizer's step, while the gradients are there."""
        if isinstance(self.model, PeftModel) and isinstance(self.model.base_model, AdaLoraModel):
            self.model.base_model.update_and_allocate(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Report to the observer; evaluate and request a checkpoint at their steps."""
        step = state.global_step
        control.should_save = step in self.eval_steps or step % self.settings.checkpoint_every == 0
        metrics = self._log(step) if control.should_save or step % LOG_EVERY == 0 else None
        if step in self.eval_steps:
            metrics = {**(metrics or {}), **self._evaluate(step)}
        self.observer.step(self.phase, step, metrics)

    def _log(self, step: int) -> dict[str, float]:
        loss = self.trainer.losses.drain()
        self.loss_since_eval += loss
        mean = loss / (step - self.logged_at)
        self.logged_at = step
        return {f"{self.phase}/loss": mean, f"{self.phase}/learning_rate": self.trainer.learning_rate}

    def _evaluate(self, step: int) -> dict[str, float]:
        data, settings = self.data, self.settings
        try:
            metrics = data.score(self.model, data.select, settings.eval_batch_size, settings.bf16)
        except (InputError, RunError) as error:
            raise RunError(
                f"{self.phase}, after optimizer step {step} of {self.total} (peak learning rate "
                f"{settings.learning_rate:.3g}, last batch {step * settings.gradient_accumulation - 1}): {error} "
                f"{self._kept()}"
            ) from error
        steps = step - (self.history[-1]["step"] if self.history else 0)
        self.history.append({"step": step, "loss": self.loss_since_eval / steps, **metrics})
        self.loss_since_eval = 0.0
        return {f"{self.phase}/select_{name}": value for name, value in metrics.items()}

    def _best(self) -> dict[str, float]:
        """The entry of the best evaluation, the first of equals; a metric that is undefined is the worst."""
        metric = self.data.metric
        return max(self.history, key=lambda entry: -math.inf if math.isnan(entry[metric]) else entry[metric])

    def _best_step(self) -> list[int]:
        """The optimizer step of the best evaluation; empty before the first one."""
        return [int(self._best()["step"])] if self.history else []

    def _seal(self, folder: Path) -> None:
        progress = {"step": self.logged_at, "history": self.history, "loss_since_eval": self.loss_since_eval}
        write_json(folder / PROGRESS, progress)
        seal(folder, {**self.identity, "threads": torch.get_num_threads()})
        keep_only(self.directory, {self.logged_at, *self._best_step()})

    def _find_checkpoint(self) -> Path | None:
        """The checkpoint to go on from, after checking it and that of the best evaluation."""
        last = last_checkpoint(self.directory)
        if last is None:
            return None
        self._check_identity(last, verify(last))
        self.logged_at, self.history, self.loss_since_eval = _read_progress(last / PROGRESS, self.data.metric)
        _check_steps(last, self.logged_at, self.history)
        for step in self._best_step():
            verify(checkpoint_folder(self.directory, step))
        return last

    def _check_identity(self, folder: Path, info: Mapping[str, Any]) -> None:
        check_fields(info, dict.fromkeys(self.identity, dict) | {"threads": int}, f"Checkpoint {folder}")
        for group, own in self.identity.items():
            for key, value in own.items():
                if info[group].get(key) != value:
                    raise InputError(
                        f"Checkpoint {folder} is of a run with {group} {key}={info[group].get(key)}, not "
                        f"{value}; "
                        "resume with the same configuration, or remove it to begin this phase anew."
                    )
        if info["threads"] != torch.get_num_threads():
            self.observer.message(
                f"The run was started with {info['threads']} threads and goes on with "
                f"{torch.get_num_threads()}: results may differ in the last digits."
            )

    def _restore_best(self) -> None:
        self.trainer.restore(checkpoint_folder(self.directory, int(self._best()["step"])))
        # accelerate wrapped the forward pass for autocast
        self.trainer.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)

    def _explain(self, error: TrainingDiverged, batches: EncodedBatches) -> str:
        at, number = error.at, error.at.number // self.settings.shares
        rows = ", ".join(map(str, sorted(batches.rows(number).tolist())))
        return (
            f"{self.phase}: the training loss is {error.value} at optimizer step {at.step} of {self.total} "
            f"(learning rate {at.learning_rate:.3g}, batch {number}: rows {rows}). {self._kept()} "
            "Lower training.learning_rate, or look at the examples of that batch."
        )

    def _kept(self) -> str:
        last = last_checkpoint(self.directory)
        return f"The last good checkpoint is kept: {last}." if last else "No checkpoint had been written."

    def _result(self) -> FinetuneResult:
        best = self._best()
        adapter, head = count_parameters(self.model, self.head)
        metrics = {name: value for name, value in best.items() if name not in ("step", "loss")}
        return FinetuneResult(metrics, int(best["step"]), self.total, self.history, adapter, head)


def _check_steps(folder: Path, step: int, history: list[dict[str, float]]) -> None:
    """Refuse a checkpoint whose files tell of other steps than its name, or of later ones."""
    with readable(folder):
        told = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME)).global_step
        latest = max((entry["step"] for entry in history), default=0)
        if told != step or folder.name != checkpoint_folder(folder.parent, step).name or latest > step:
            raise ValueError(f"its files tell of the steps {told}, {step} and {latest}")


def _read_progress(path: Path, metric: str) -> tuple[int, list[dict[str, float]], float]:
    """The step of a checkpoint, the evaluations before it by this metric, and the loss since the last of them."""
    kinds: dict[str, Kinds] = {"step": int, "history": list, "loss_since_eval": (int, float)}
    progress = read_object(path, "checkpoint", kinds)
    for entry in progress["history"]:
        there = entry if isinstance(entry, dict) and metric in entry else {}
        check_fields(there, {"step": int, metric: (int, float, NoneType)}, f"{path}: the checkpoint")
    history = [
        {name: math.nan if value is None else value for name, value in entry.items()}  # undefined is null in JSON
        for entry in progress["history"]
    ]
    return progress["step"], history, progress["loss_since_eval"]
