"""The head of a classifier reads the mean of all tokens where it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import CAUSAL, FAMILIES, save_tiny, save_tiny_causal, tiny_batch
from torch import Tensor, nn
from transformers import PreTrainedModel

from morenas.base.errors import InputError
from morenas.models import load_pretrained

ENCODERS = [family for family in FAMILIES if family not in CAUSAL]


def load(folder: Path, pooling: str = "mean") -> PreTrainedModel:
    return load_pretrained(str(folder), 2, pooling=pooling).model


def mean_of_tokens(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """Written out, from an encoder that pools nothing."""
    encoder: nn.Module = getattr(model, model.base_model_prefix)
    hooks, encoder._forward_hooks = encoder._forward_hooks, type(encoder._forward_hooks)()
    hidden = encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    encoder._forward_hooks = hooks
    rows = zip(hidden, batch["attention_mask"].bool(), strict=True)
    return torch.stack([states[kept].mean(dim=0) for states, kept in rows])


def head_of(family: str, model: Any, mean: Tensor) -> Tensor:
    """What a classifier of a family makes of the mean."""
    if family == "distilbert":
        mean = torch.relu(model.pre_classifier(mean))
    elif family == "deberta-v2":
        mean = model.pooler(mean[:, None])
    elif family != "bert":
        mean = mean[:, None]
    logits: Tensor = model.classifier(mean)
    return logits


def padded() -> dict[str, Tensor]:
    batch = tiny_batch()
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    batch["attention_mask"][0, 4:] = 0
    batch["attention_mask"][1, 2:] = 0
    return batch


@pytest.mark.parametrize("family", ENCODERS)
def test_the_head_sees_the_mean_over_the_mask(tmp_path: Path, family: str) -> None:
    model, batch = load(save_tiny(family, tmp_path)), padded()
    with torch.no_grad():
        expected = head_of(family, model, mean_of_tokens(model, batch))
        torch.testing.assert_close(model(**batch).logits, expected)


@pytest.mark.parametrize("family", ENCODERS)
def test_gradients_reach_every_token(tmp_path: Path, family: str) -> None:
    model, batch = load(save_tiny(family, tmp_path)), padded()
    model.requires_grad_(True)
    embedded = model.get_input_embeddings()(batch.pop("input_ids")).detach().requires_grad_(True)
    model(inputs_embeds=embedded, **batch).loss.backward()
    assert embedded.grad is not None
    assert embedded.grad[2].abs().sum(dim=-1).gt(0).all()


def test_a_pooler_that_nothing_reads_is_gone(tmp_path: Path) -> None:
    folder = save_tiny("bert", tmp_path)
    assert load_pretrained(str(folder), 2, pooling="mean").head == ("classifier",)
    assert not any("pooler" in name for name, _ in load(folder).named_modules() if name == "bert.pooler")
    assert any(".pooler" in name for name, _ in load(folder, "own").named_modules())


def test_a_model_saved_whole_is_pooled_again(tmp_path: Path) -> None:
    model, batch = load(save_tiny("bert", tmp_path / "base")), padded()
    model.save_pretrained(str(tmp_path / "saved"))
    save_tiny("bert", tmp_path / "base")  # the tokenizer's files
    for file in (tmp_path / "base").glob("tokenizer*"):
        (tmp_path / "saved" / file.name).write_bytes(file.read_bytes())
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path / "saved", "own")(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("family", CAUSAL)
def test_decoders_are_refused(tmp_path: Path, family: str) -> None:
    with pytest.raises(InputError, match=r"model\.pooling=mean.*first token of an encoder"):
        load_pretrained(str(save_tiny(family, tmp_path)), 2, pooling="mean")


def test_a_language_model_has_nothing_to_pool(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.pooling=mean.*has no classifier"):
        load_pretrained(str(save_tiny_causal(tmp_path, "llama")), 0, kind="generation", pooling="mean")


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.pooling=means.*own, mean.*did you mean 'mean'"):
        load_pretrained(str(tmp_path), 2, pooling="means")
