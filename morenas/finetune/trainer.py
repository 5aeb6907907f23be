"""transformers' Trainer, made a function of the seed and the step alone.

The Trainer brings the optimizer, schedule, clipping, accumulation and mixed precision. Three things are ours:

- batch and dropout of a micro-batch depend on its number alone, so a resumed run needs no generator state;
- checkpoints hold what is trained, not the frozen model, and are sealed (see ``checkpoints``);
- the loss of accumulated micro-batches is the mean over all their labels (examples, or tokens) for every model. The
  Trainer trusts models whose forward takes ``**kwargs`` to divide by the number of examples themselves, and most
  classifiers do not.

Nothing is unpickled on resume: the model's part is safetensors and JSON, and ``Trainer`` (5.23) reads its
optimizer.pt, scheduler.pt and rng_state.pth by ``torch.load(..., weights_only=True)`` and trainer_state.json
as JSON.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, SequentialSampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerCallback

from morenas.base.errors import InputError, RunError, one_line
from morenas.base.files import writing
from morenas.base.seeds import derive, seed_pass
from morenas.base.tensors import load_tensors, save_tensors
from morenas.finetune.checkpoints import checkpoint_folder
from morenas.finetune.shared import SharedGradients
from morenas.finetune.state import allocator_state, load_allocator_state, load_trained_state, trained_state
from morenas.tasks.batches import Batches
from morenas.tasks.parts import Parts, size
from morenas.tasks.prompts import IGNORED


@dataclass(frozen=True)
class MicroBatch:
    """The place of a loss in training: optimizer step (from 1), micro-batch number (from 0), learning rate."""

    step: int
    number: int
    learning_rate: float


class TrainingDiverged(Exception):
    """A training loss is infinite or not a number."""

    def __init__(self, at: MicroBatch, value: float) -> None:
        super().__init__(f"loss {value} at step {at.step}")
        self.at, self.value = at, value


class LossLog:
    """Collect losses on their device.

    Args:
        eager: Read each loss at once. That costs nothing on a CPU; elsewhere it would wait for the device.
    """

    def __init__(self, eager: bool) -> None:
        self.eager = eager
        self._unread: list[tuple[MicroBatch, Tensor]] = []
        self._sum = 0.0

    def add(self, at: MicroBatch, loss: Tensor) -> None:
        """Keep the loss of a micro-batch."""
        self._unread.append((at, loss.detach()))
        if self.eager:
            self._read()

    def drain(self) -> float:
        """Return the sum of the losses since the last call, after checking all of them.

        Raises:
            TrainingDiverged: At the first loss that is not finite.
        """
        self._read()
        total, self._sum = self._sum, 0.0
        return total

    def _read(self) -> None:
        if not self._unread:
            return
        values = torch.stack([loss for _, loss in self._unread]).tolist()
        for (at, _), value in zip(self._unread, values, strict=True):
            if not math.isfinite(value):
                raise TrainingDiverged(at, value)
        self._sum += sum(values)
        self._unread.clear()


TRAINED = "trained.safetensors"
HEADS = ".modules_to_save."
"""In the name of what PEFT trains whole."""


class _Numbered(Dataset[dict[str, Any]]):
    """The first ``count`` micro-batches, each carrying its number."""

    def __init__(self, batches: Batches, count: int) -> None:
        self.batches, self.count = batches, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {**self.batches[number], "number": number}


class StepTrainer(Trainer):
    """Train on numbered micro-batches in one long epoch.

    Args:
        model: From ``attach``.
        args: With ``max_steps``; the callback requests checkpoints and evaluations.
        batches: Micro-batches by number.
        callback: Sees every step.
        after_save: Called with the folder of each checkpoint once all files are in it.
        shares: Parts that each batch is cut into; its micro-batches are these.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        batches: Batches,
        callback: TrainerCallback,
        after_save: Callable[[Path], None],
        shares: int = 1,
    ) -> None:
        self.adapted = model
        self.micro_batches = _Numbered(Parts(batches, shares), args.max_steps * args.gradient_accumulation_steps)
        super().__init__(model=model, args=args, train_dataset=self.micro_batches, callbacks=[callback])
        self.remove_callback(PrinterCallback)
        self.losses = LossLog(eager=args.device.type == "cpu")
        self.after_save = after_save
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.shared = SharedGradients(trained, args.gradient_accumulation_steps)
        # the Trainer then counts the labels of a step, passes the count to compute_loss, and divides by nothing itself
        self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga = True

    @property
    def learning_rate(self) -> float:
        """Of the next optimizer step."""
        assert self.lr_scheduler is not None
        return float(self.lr_scheduler.get_last_lr()[0])

    def get_train_dataloader(self) -> DataLoader:
        """Micro-batches in order; skipping the first ones on resume costs nothing."""
        loader = DataLoader(
            self.micro_batches,
            sampler=SequentialSampler(self.micro_batches),
            collate_fn=lambda items: items[0],
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Train on one micro-batch under the random state of its number."""
        number = inputs.pop("number")

        def backward() -> Tensor:
            if not size(inputs):  # a share of a batch of few examples
                return torch.zeros((), device=self.args.device)
            seed_pass(derive(self.args.seed, "dropout", number), self.args.device)
            loss = super(StepTrainer, self).training_step(model, inputs, num_items_in_batch)
            if number == 0:
                check_gradients(self.adapted)
            return loss

        loss = torch.zeros((), device=self.args.device)
        for known, loss in self.shared.step(number, backward):
            self.losses.add(MicroBatch(self.state.global_step + 1, known, self.learning_rate), loss)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The micro-batch's share of the mean loss over all labels of the optimizer step."""
        outputs = model(**inputs)
        share = 1.0 if num_items_in_batch is None else inputs["labels"].ne(IGNORED).sum() / num_items_in_batch
        loss = outputs.loss * share
        return (loss, outputs) if return_outputs else loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the Trainer would walk over all parameters at every step."""
        return 0

    def restore(self, folder: Path) -> None:
        """Give the model the trained state of a checkpoint."""
        tensors, info = load_tensors(folder / TRAINED)
        load_trained_state(self.adapted, _under("model/", tensors), str(folder))
        load_allocator_state(self.adapted, _under("allocator/", tensors), info)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        allocator, info = allocator_state(self.adapted)
        tensors = {f"model/{name}": tensor for name, tensor in trained_state(self.adapted).items()}
        tensors |= {f"allocator/{name}": tensor for name, tensor in allocator.items()}
        save_tensors(folder / TRAINED, tensors, info)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with readable(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with readable(checkpoint):
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with readable(checkpoint):
            super()._load_rng_state(checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.restore(Path(resume_from_checkpoint))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = checkpoint_folder(Path(str(self.args.output_dir)), self.state.global_step)
        with writing(folder):
            super()._save_checkpoint(model, trial)
            self.after_save(folder)


def check_gradients(model: Any) -> None:
    """End a training in which no adapter gets a gradient: the head alone would learn, without a word.

    Raises:
        RunError: If the loss does not depend on the layers that have adapters, or they compute gradients themselves.
    """
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    adapters = [value for name, value in trained.items() if isinstance(model, PeftModel) and HEADS not in name]
    if adapters and all(value.grad is None for value in adapters):
        raise RunError(
            f"No adapter of {type(model.get_base_model()).__name__} gets a gradient: its loss does not depend on the "
            "layers that have adapters, or these compute their gradients themselves. Choose other target_modules, or "
            "another model."
        )


@contextlib.contextmanager
def readable(checkpoint: str | Path | None) -> Iterator[None]:
    """Refuse a checkpoint whose files, of the sizes and hashes that its manifest says, hold something else."""
    try:
        yield
    except Exception as error:  # of any kind: what torch and transformers raise of a wrong file shares no base
        raise InputError(
            f"Checkpoint {checkpoint}: is none that a run has written ({one_line(error)}); remove the folder to go on "
            "from the checkpoint before it."
        ) from error


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
