"""A vocabulary that was resized goes along with an adapter, from an object and from a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from grids import in_turn
from peft import PeftModel, get_peft_model
from tiny_adapters import more_config
from tiny_exports import ADAPTER, difference, outputs
from tiny_models import Tiny, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import morenas
from morenas.base.errors import InputError
from morenas.export.base import read_tensors

TINY = Tiny("llama")
SIZE = 48  # the base model has 40

CHANGES: dict[str, dict[str, Any]] = {
    "resized": {},
    "resized and trained": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "resized, with an adapter on the output layer": {"target_modules": ["q_proj", "lm_head"]},
}
changes = pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
tied = pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])


def resized(base: Path, seed: int) -> Any:
    """The base model with more embeddings, the new ones by ``seed``."""
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(seed)
    model.resize_token_embeddings(SIZE, mean_resizing=False)
    return model.eval()


def trained(base: Path, **config: Any) -> Any:
    model = resized(base, seed=0)
    adapter = get_peft_model(model, more_config(model, task_type="CAUSAL_LM", **config))
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if ".modules_to_save." in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return adapter.eval()


def new_tokens(model: Any) -> Any:
    """Logits on the tokens that the base model does not have."""
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(SIZE - 12, SIZE)[None]).logits


@pytest.fixture
def base(tmp_path: Path, tie: bool) -> Iterator[Path]:
    yield Tiny("llama", options=(("tie_word_embeddings", tie),)).save(tmp_path / "base")


@tied
@changes
@pytest.mark.parametrize("saved", [False, True], ids=["object", "folder"])
def test_every_export_of_a_resized_model_computes_what_it_computed(
    changes: dict[str, Any], saved: bool, base: Path, tie: bool, tmp_path: Path
) -> None:
    if tie and "modules_to_save" in changes:
        changes = {"modules_to_save": ["embed_tokens"]}
    model = trained(base, **changes)
    expected, adapter = new_tokens(model), tmp_path / "adapter"
    model.save_pretrained(str(adapter))
    given = adapter if saved else model
    if saved and not tie and "target_modules" in changes:  # PEFT saves the output layer's embeddings alone
        with pytest.raises(InputError, match=r"vocabulary of 48, .* does not hold its input embeddings"):
            morenas.to_lora(given, tmp_path / "lora")
        return
    done = morenas.to_lora(given, tmp_path / "lora")
    morenas.to_merged(given, tmp_path / "merged")
    lora = PeftModel.from_pretrained(resized(base, seed=1), tmp_path / "lora")
    assert difference(new_tokens(lora), expected) <= 1e-5
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert difference(new_tokens(merged), expected) <= 1e-5
    assert done.vocabulary == SIZE and done.unread
    assert f"resize_token_embeddings({SIZE})" in (tmp_path / "lora" / "README.md").read_text()


@pytest.mark.parametrize("tie", [False])
def test_the_tokenizer_that_was_saved_beside_the_adapter_goes_along(base: Path, tie: bool, tmp_path: Path) -> None:
    trained(base).save_pretrained(str(tmp_path / "adapter"))
    tokenizer = tiny_tokenizer("llama")
    tokenizer.add_tokens(["new"])
    tokenizer.save_pretrained(tmp_path / "adapter")
    morenas.to_merged(tmp_path / "adapter", tmp_path / "merged")
    assert len(AutoTokenizer.from_pretrained(tmp_path / "merged")) == len(tokenizer)


@pytest.mark.parametrize("tie", [False])
def test_embeddings_of_the_base_s_size_that_differ_from_it_go_along(base: Path, tie: bool, tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    adapter = get_peft_model(model, more_config(model, task_type="CAUSAL_LM"))
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.5)
    adapter.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=True)
    expected = outputs(adapter, TINY)
    morenas.to_lora(tmp_path / "adapter", tmp_path / "lora")
    lora = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "lora")
    assert difference(outputs(lora, TINY), expected) <= 1e-5


@pytest.mark.parametrize("tie", [False])
def test_embeddings_that_are_the_base_s_own_are_left_out(base: Path, tie: bool, tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    config = more_config(model, task_type="CAUSAL_LM", target_modules=["q_proj", "lm_head"])
    adapter = get_peft_model(model, config)
    with pytest.warns(UserWarning, match="save_embedding_layers"):
        adapter.save_pretrained(str(tmp_path / "adapter"))  # PEFT adds them where the output layer has an adapter
    assert any("base_layer" in name for name in read_tensors(tmp_path / "adapter" / ADAPTER))
    done = morenas.to_lora(tmp_path / "adapter", tmp_path / "lora")
    assert not done.unread and done.vocabulary is None
    assert all(".lora_" in name for name in read_tensors(tmp_path / "lora" / ADAPTER))


FAMILIES = ("bert", "roberta", "distilbert", "electra", "deberta-v2", "llama")


@in_turn(family=FAMILIES, num_labels=[17, 40, 16])
def test_a_head_of_more_classes_than_it_is_wide_is_exported(family: str, num_labels: int, tmp_path: Path) -> None:
    tiny = Tiny(family, causal=False)
    base = tiny.save(tmp_path / "base")
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=num_labels, ignore_mismatched_sizes=True
    )
    native = get_peft_model(model, more_config(model, modules_to_save=list(morenas.find_head(model))))
    native.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    expected = outputs(native, tiny)
    morenas.to_lora(tmp_path / "adapter", tmp_path / "lora")
    morenas.to_merged(tmp_path / "adapter", tmp_path / "merged")
    merged: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert merged.config.num_labels == num_labels
    assert difference(outputs(merged, tiny), expected) <= 1e-5


def test_an_adapter_that_was_saved_under_a_name_is_found_below(tmp_path: Path) -> None:
    base = TINY.save(tmp_path / "base")
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, more_config(model), adapter_name="mine").save_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(InputError, match=r"holds no adapter .*there is one in mine: name .*adapter/mine"):
        morenas.to_lora(tmp_path / "adapter", tmp_path / "lora")
    morenas.to_lora(tmp_path / "adapter" / "mine", tmp_path / "lora")


def test_an_adapter_that_was_saved_as_a_torch_file_is_read(tmp_path: Path) -> None:
    base = TINY.save(tmp_path / "base")
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    native = get_peft_model(model, more_config(model))
    expected = outputs(native, TINY)
    native.save_pretrained(str(tmp_path / "adapter"))
    torch.save(read_tensors(tmp_path / "adapter" / ADAPTER), tmp_path / "adapter" / "adapter_model.bin")
    (tmp_path / "adapter" / ADAPTER).unlink()
    morenas.to_merged(tmp_path / "adapter", tmp_path / "merged")
    assert difference(outputs(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), TINY), expected) <= 1e-5
