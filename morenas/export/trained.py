"""A run's model as one plain model of transformers, whatever method trained it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from morenas.base.files import read_object
from morenas.export.base import CONFIG, MORE, PART, check_tensors, load_other, put_on, read_tensors
from morenas.export.forms import Exported, write_merged, write_model
from morenas.models import Pretrained, is_causal
from morenas.run.reading import FinishedRun


def write_trained_merged(run: FinishedRun, pretrained: Pretrained, folder: Path) -> Exported:
    """Fill a folder with the trained model and its tokenizer.

    Raises:
        InputError: If what the run left does not fit its base model.
    """
    if (run.adapter / CONFIG).exists():
        kind = read_object(run.adapter / CONFIG, "adapter's configuration").get("peft_type")
        load = put_on if kind == MORE else load_other
        exported = write_merged(load(pretrained.model, run.adapter), folder)
    else:
        if (run.adapter / PART).exists():
            _copy_part(pretrained, run.adapter / PART)
            write_model(pretrained.model, folder)
        else:
            write_model(_whole(pretrained, run.adapter), folder)
        exported = Exported("merged", is_causal(pretrained.model))
    pretrained.tokenizer.save_pretrained(str(folder))
    return exported


@torch.no_grad()
def _copy_part(pretrained: Pretrained, path: Path) -> None:
    heads = tuple(f"{name}." for name in pretrained.head)
    everything = pretrained.model.state_dict(keep_vars=True).items()
    # buffers are saved with what was trained
    own = {name: value for name, value in everything if name.startswith(heads) or not isinstance(value, nn.Parameter)}
    trained = read_tensors(path)
    check_tensors(str(path), own, trained)
    for name, parameter in own.items():
        parameter.copy_(trained[name])


def _whole(pretrained: Pretrained, directory: Path) -> nn.Module:
    kind: Any = type(pretrained.model)
    model: nn.Module = kind.from_pretrained(str(directory))
    return model
