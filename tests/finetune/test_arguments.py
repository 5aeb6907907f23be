"""The Trainer works on the device that was asked for, one of them, and reports to nobody."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import SETTINGS, Recorder, tiny_adapted, tiny_data

from morenas.finetune.arguments import one_device, trainer_arguments
from morenas.finetune.loop import finetune


@pytest.mark.parametrize(("device", "accelerators"), [("cpu", 0), ("cuda:1", 1), ("mps", 1)])
def test_the_named_device_is_the_only_one(
    device: str, accelerators: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", made_current.append)
    with one_device(device):
        arguments = trainer_arguments(replace(SETTINGS, device=device), 10, tmp_path)
    assert arguments.device == torch.device(device)
    assert arguments.distributed_state.device == torch.device(device)
    assert arguments.n_gpu == accelerators
    assert made_current[-1:] == ([torch.device(device)] if device.startswith("cuda") else [])


def test_the_environment_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "mine")
    with one_device("cuda:1"):
        assert os.environ["ACCELERATE_TORCH_DEVICE"] == "cuda:1"
    assert os.environ["ACCELERATE_TORCH_DEVICE"] == "mine"


def test_what_the_trainer_does_by_itself_is_off(tmp_path: Path) -> None:
    arguments = trainer_arguments(SETTINGS, 10, tmp_path)
    assert (arguments.report_to, arguments.disable_tqdm, arguments.logging_nan_inf_filter) == (
        [],
        True,
        False,
    )
    assert {arguments.save_strategy, arguments.eval_strategy, arguments.logging_strategy} == {"no"}


def test_any_seed_is_taken(tmp_path: Path) -> None:
    settings = replace(SETTINGS, seed=2**62, max_steps=1)
    assert finetune(tiny_adapted(), tiny_data(), settings, tmp_path, Recorder()).steps == 1


@pytest.mark.gpu
@pytest.mark.parametrize("bf16", [False, True])
def test_a_gpu_trains_and_resumes(bf16: bool, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    settings = replace(SETTINGS, device=f"cuda:{torch.cuda.device_count() - 1}", bf16=bf16)
    with pytest.raises(KeyboardInterrupt):
        finetune(tiny_adapted(), tiny_data(), settings, tmp_path, Recorder(stop_at=8))
    model = tiny_adapted()
    result = finetune(model, tiny_data(), settings, tmp_path, Recorder())
    assert result.best_step in (3, 6, 9, 12)
    assert {parameter.device for parameter in model.parameters()} == {torch.device(settings.device)}
