"""The Trainer's arguments, on exactly the device that the settings name."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import TrainingArguments

from morenas.finetune.settings import TrainingSettings


@dataclass
class OneDeviceArguments(TrainingArguments):
    """Arguments that name one device.

    By default the Trainer takes the first GPU, even if accelerate is set to another, and all GPUs by DataParallel.
    """

    device_name: str = field(default="cpu")

    @property
    def device(self) -> torch.device:
        """Where model and batches go."""
        _ = super().device  # sets up accelerate, once
        return torch.device(self.device_name)

    @property
    def n_gpu(self) -> int:
        """One accelerator at most."""
        return int(torch.device(self.device_name).type != "cpu")


def trainer_arguments(settings: TrainingSettings, total_steps: int, directory: Path) -> TrainingArguments:
    """Return the Trainer's arguments: our settings, and all that it does by itself switched off."""
    arguments = OneDeviceArguments(
        device_name=settings.device,
        output_dir=str(directory),
        max_steps=total_steps,
        per_device_train_batch_size=1,  # a row of the Trainer's data set is one of our micro-batches
        gradient_accumulation_steps=settings.micro_batches,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=math.ceil(settings.warmup_ratio * total_steps),
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.bf16,
        seed=settings.seed % 2**32,  # numpy takes no more
        use_cpu=settings.device == "cpu",
        eval_strategy="no",  # the callback requests evaluations and checkpoints
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,  # it would hide a loss that is not finite
        dataloader_pin_memory=settings.device.startswith("cuda"),
        disable_tqdm=True,
        report_to=[],
        log_level="error",
    )
    if arguments.device.type == "cuda":
        torch.cuda.set_device(arguments.device)  # setting up has made the first one current
    return arguments


@contextlib.contextmanager
def one_device(device: str) -> Iterator[None]:
    """Make accelerate use ``device``; by default it takes the first accelerator it finds."""
    if device == "cpu":
        yield
        return
    before = os.environ.get("ACCELERATE_TORCH_DEVICE")
    os.environ["ACCELERATE_TORCH_DEVICE"] = device
    try:
        yield
    finally:
        if before is None:
            del os.environ["ACCELERATE_TORCH_DEVICE"]
        else:
            os.environ["ACCELERATE_TORCH_DEVICE"] = before
