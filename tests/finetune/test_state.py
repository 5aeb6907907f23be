"""What is saved loads elsewhere and computes the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny_models import FAMILIES, shallow, tiny_batch
from tiny_training import SETTINGS, Recorder, tiny_adapted, tiny_architecture, tiny_data
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from morenas.finetune.loop import finetune
from morenas.finetune.methods import AdaLora, Boft, Dora, Full, GraLora, Head, Lora, Method, More, method_name
from morenas.finetune.state import save_adapter


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(**tiny_batch()).logits


def trained(method: Method, directory: Path, family: str = "bert") -> nn.Module:
    model = tiny_adapted(method, family)
    finetune(model, tiny_data(family), replace(SETTINGS, evals=1), directory, Recorder())
    return model


@pytest.mark.parametrize(
    "method",
    [More().with_architecture(tiny_architecture()), Lora(), Dora(), AdaLora(every=2), GraLora(), Boft()],
    ids=method_name,
)
def test_a_peft_adapter_loads_onto_the_base_with_its_head(method: Method, tmp_path: Path) -> None:
    model = trained(method, tmp_path / "checkpoints")
    save_adapter(model, tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(shallow("bert"), str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(logits(loaded), logits(shallow("bert")))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_back(family: str, tmp_path: Path) -> None:
    model = trained(Lora(rank=2), tmp_path / "checkpoints", family)
    save_adapter(model, tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(shallow(family), str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-6, rtol=1e-5)


def test_a_whole_model_loads_by_itself(tmp_path: Path) -> None:
    model = trained(Full(), tmp_path / "checkpoints")
    save_adapter(model, tmp_path / "model")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(logits(loaded), logits(model))


def test_a_part_is_saved_by_name(tmp_path: Path) -> None:
    model = trained(Head(), tmp_path / "checkpoints")
    save_adapter(model, tmp_path / "head")
    fresh = shallow("bert")
    part = load_file(tmp_path / "head" / "trained.safetensors")
    assert set(part) == {"classifier.weight", "classifier.bias"}
    fresh.load_state_dict(part, strict=False)
    torch.testing.assert_close(logits(fresh), logits(model))


def test_saving_asks_no_hub_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object, **__: object) -> bool:
        raise AssertionError("asked the hub")

    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", never)
    save_adapter(tiny_adapted(), tmp_path / "adapter")
    save_adapter(tiny_adapted(Full()), tmp_path / "full")
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_is_there_is_replaced_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "stale").touch()
    save_adapter(tiny_adapted(), tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "stale").exists()
    assert (tmp_path / "adapter" / "adapter_config.json").exists()
