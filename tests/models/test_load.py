"""Classifiers load with a head that depends on the seed alone."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from tiny_models import (
    CAUSAL,
    FAMILIES,
    NO_PAD_TOKEN,
    save_tiny,
    save_tiny_causal,
    tiny_batch,
    tiny_causal,
    tiny_causal_batch,
    tiny_classifier,
)
from transformers import BertConfig, BertModel

from morenas.base.errors import InputError
from morenas.base.settings import meanings
from morenas.models import load_pretrained
from morenas.models.heads import find_head
from morenas.models.weights import FrozenWeights

HEADS = {
    "bert": ("classifier",),
    "roberta": ("classifier",),
    "distilbert": ("pre_classifier", "classifier"),
    "deberta-v2": ("pooler", "classifier"),
    "electra": ("classifier",),
    **{family: ("score",) for family in CAUSAL},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: save_tiny(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_and_its_head_is_what_the_task_adds(folders: dict[str, Path], family: str) -> None:
    pretrained = load_pretrained(str(folders[family]), 3, ("x", "y", "z"))
    assert pretrained.head == HEADS[family]
    assert pretrained.model.config.id2label == {0: "x", 1: "y", 2: "z"}
    assert pretrained.model(**tiny_batch(num_labels=3)).logits.shape == (3, 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pad_token_is_there_and_taking_one_is_said(folders: dict[str, Path], family: str) -> None:
    pretrained = load_pretrained(str(folders[family]), 2)
    assert pretrained.model.config.pad_token_id == pretrained.tokenizer.pad_token_id is not None
    assert pretrained.tokenizer.padding_side == "right"
    assert bool(pretrained.notes) == (family in NO_PAD_TOKEN)


def test_the_head_is_a_function_of_the_seed_and_of_nothing_else(folders: dict[str, Path]) -> None:
    def head(seed: int) -> torch.Tensor:
        return load_pretrained(str(folders["bert"]), 2, seed=seed).model.state_dict()["classifier.weight"]

    torch.manual_seed(1)
    first = head(7)
    torch.manual_seed(2)
    assert torch.equal(first, head(7))
    assert not torch.equal(first, head(8))


def test_loading_leaves_the_global_random_state(folders: dict[str, Path]) -> None:
    before = torch.random.get_rng_state()
    load_pretrained(str(folders["roberta"]), 2)
    assert torch.equal(before, torch.random.get_rng_state())


def test_loading_is_silent(folders: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    load_pretrained(str(folders["bert"]), 2)
    assert capfd.readouterr() == ("", "")


def test_regression_has_one_output_and_a_squared_loss(folders: dict[str, Path]) -> None:
    model = load_pretrained(str(folders["bert"]), 1, kind="regression").model
    batch = tiny_batch(num_labels=1)
    output = model(**batch)
    assert output.logits.shape == (3, 1)
    torch.testing.assert_close(output.loss, (output.logits[:, 0] - batch["labels"]).square().mean())


def test_half_precision_weights_load_as_float32(tmp_path: Path) -> None:
    tiny_classifier("bert").half().save_pretrained(save_tiny("bert", tmp_path))
    assert load_pretrained(str(tmp_path), 2).model.dtype == torch.float32


def test_a_head_for_other_labels_is_replaced_and_said(tmp_path: Path) -> None:
    save_tiny("bert", tmp_path, num_labels=5)
    pretrained = load_pretrained(str(tmp_path), 2)
    assert pretrained.model.num_labels == 2
    assert pretrained.model.state_dict()["classifier.weight"].shape == (2, 16)
    assert "classifier.weight" in pretrained.notes[0]


def test_a_pooler_that_the_checkpoint_lacks_is_part_of_the_head(tmp_path: Path) -> None:
    save_tiny("bert", tmp_path)
    BertModel(BertConfig.from_pretrained(tmp_path), add_pooling_layer=False).save_pretrained(tmp_path)
    assert load_pretrained(str(tmp_path), 2).head == ("bert.pooler.dense", "classifier")


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    save_tiny("bert", tmp_path)
    tiny_classifier("gpt2").save_pretrained(tmp_path / "other")
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="weights lack"):
        load_pretrained(str(tmp_path), 2)


def test_weights_of_another_size_are_refused_even_where_they_are_few(tmp_path: Path) -> None:
    save_tiny("bert", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"type_vocab_size": 5}))
    with pytest.raises(InputError, match=r"1 of its weights .*\(the first is bert.embeddings.token_type_embeddings"):
        load_pretrained(str(tmp_path), 2)


def layers_of(folder: Path, layers: int) -> str:
    """A tiny model of two layers whose config.json counts others."""
    save_tiny("bert", folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["num_hidden_layers"] == 2
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
    return str(folder)


def test_a_layer_that_the_weights_lack_is_not_started_from_random_numbers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"its weights lack 16 of .*\(the first is bert.encoder.layer.2.*not whole"):
        load_pretrained(layers_of(tmp_path, 3), 2)


def test_a_tensor_that_the_weights_lack_inside_the_model_is_not_started_from_random_numbers(tmp_path: Path) -> None:
    weights = save_tiny("bert", tmp_path) / "model.safetensors"
    tensors = load_file(weights)
    del tensors[next(key for key in tensors if key.endswith("position_embeddings.weight"))]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"its weights lack 1 of .*\(the first is bert.embeddings.position_embeddings"):
        load_pretrained(str(tmp_path), 2)


def test_layers_that_config_json_does_not_count_are_left_out_and_said(tmp_path: Path) -> None:
    pretrained = load_pretrained(layers_of(tmp_path, 1), 2)
    (note,) = pretrained.notes
    assert "weights of more layers than config.json counts; 16 tensors are left out" in note
    assert "encoder.layer.1.attention.output.LayerNorm.bias)" in note


@pytest.mark.parametrize(("family", "positions"), [("bert", 70), ("roberta", 69), *((f, 70) for f in CAUSAL)])
def test_texts_are_cut_where_the_positions_of_the_model_end(family: str, positions: int, tmp_path: Path) -> None:
    save_tiny(family, tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 2000}))
    assert load_pretrained(str(tmp_path), 2).tokenizer.model_max_length == positions


def test_a_damaged_pickle_of_weights_is_refused(tmp_path: Path) -> None:
    save_tiny("bert", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02 cut short")
    with pytest.raises(InputError, match="model cannot be loaded"):
        load_pretrained(str(tmp_path), 2)


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    save_tiny("bert", tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model": 1}')
    with pytest.raises(InputError, match="tokenizer cannot be loaded"):
        load_pretrained(str(tmp_path), 2)


def test_the_fingerprint_is_of_the_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    same = load_pretrained(str(save_tiny("bert", tmp_path / "same")), 2).fingerprint
    other = load_pretrained(str(save_tiny("bert", tmp_path / "other", seed=1)), 2).fingerprint
    assert load_pretrained(str(folders["bert"]), 2).fingerprint == same != other
    assert len(same) == 64


def test_a_head_can_be_found_without_knowing_what_is_new() -> None:
    assert find_head(tiny_classifier("distilbert")) == ("pre_classifier", "classifier")


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2-fp16", "babyllama-tok105", "stories260K"])
def test_real_weights_load(real_models: Path, name: str) -> None:
    pretrained = load_pretrained(str(real_models / name), 2)
    encoded = pretrained.tokenizer("a cat sat", "on the mat", return_tensors="pt")
    assert pretrained.model.eval()(**encoded).logits.isfinite().all()


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize("kind", ["choice", "generation"])
def test_a_causal_language_model_loads_whole_and_without_a_head(family: str, kind: str, tmp_path: Path) -> None:
    save_tiny_causal(tmp_path, family)
    pretrained = load_pretrained(str(tmp_path), 1, kind=kind)
    assert pretrained.model.can_generate() and pretrained.head == ()
    assert pretrained.tokenizer.pad_token_id is not None
    batch = tiny_causal_batch()
    torch.testing.assert_close(pretrained.model(**batch).logits, tiny_causal(family)(**batch).logits)


def test_an_encoder_is_no_causal_language_model(tmp_path: Path) -> None:
    save_tiny("bert", tmp_path)
    with pytest.raises(InputError, match=r"it is no causal language model, which this task needs"):
        load_pretrained(str(tmp_path), 1, kind="choice")


@pytest.mark.parametrize(("quantization", "library"), [("bnb_4bit", "bitsandbytes"), ("int8", "torchao")])
def test_quantization_without_its_library_is_refused(
    quantization: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morenas.models.weights.find_spec", lambda name: None)
    save_tiny_causal(tmp_path, "llama")
    with pytest.raises(InputError, match=f"model.quantization={quantization} needs {library}, which is not installed"):
        load_pretrained(str(tmp_path), 1, kind="choice", weights=FrozenWeights(quantization=quantization))


def test_unknown_ways_to_keep_weights_are_refused() -> None:
    with pytest.raises(InputError, match=r"model.dtype=bfloat61: .*did you mean 'bfloat16'"):
        FrozenWeights(dtype="bfloat61")
    with pytest.raises(InputError, match=r"model.quantization=4bit: choose from none, bnb_4bit"):
        FrozenWeights(quantization="4bit")


def test_every_way_to_keep_weights_says_what_it_means_and_stands_in_a_schema() -> None:
    assert [field.name for field in fields(FrozenWeights)] == list(meanings(FrozenWeights))
    assert OmegaConf.to_object(OmegaConf.structured(FrozenWeights)) == FrozenWeights()


def test_weights_are_kept_in_the_precision_asked_for(tmp_path: Path) -> None:
    save_tiny_causal(tmp_path, "llama")
    pretrained = load_pretrained(str(tmp_path), 1, kind="choice", weights=FrozenWeights(dtype="bfloat16"))
    assert {parameter.dtype for parameter in pretrained.model.parameters()} == {torch.bfloat16}
