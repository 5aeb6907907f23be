"""What a fine-tune leaves for others to load."""

from __future__ import annotations

import warnings
from pathlib import Path

from peft import PeftModel
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from morenas.base.files import whole_directory
from morenas.finetune.state import trained_state
from morenas.models import is_causal
from morenas.models.quiet import quiet_transformers


def save_adapter(model: nn.Module, directory: str | Path) -> None:
    """Write what was trained as a folder, whole or not at all.

    A model with adapters gives a PEFT adapter, head included (``adapter_config.json``,
    ``adapter_model.safetensors``), for ``PeftModel.from_pretrained``. Without adapters, a model trained as a
    whole is saved as such, for ``from_pretrained``; one of which a part was trained gives that part
    (``trained.safetensors``, names as in the task model).
    """
    with whole_directory(Path(directory)) as folder, quiet_transformers(), warnings.catch_warnings():
        # PEFT doubts the rank 0 that its own AdaLoRA makes
        warnings.filterwarnings("ignore", ".*invalid shape")
        if isinstance(model, PeftModel):
            # left to "auto", PEFT asks the hub whether the vocabulary was resized
            model.save_pretrained(str(folder), save_embedding_layers=False)
        elif isinstance(model, PreTrainedModel) and all(p.requires_grad for p in model.parameters()):
            if is_causal(model):
                model.config.use_cache = True  # off in training alone
            model.save_pretrained(str(folder))
        else:
            state = {name: tensor.detach().cpu().contiguous() for name, tensor in trained_state(model).items()}
            save_file(state, folder / "trained.safetensors")
