"""A model is found, or refused by name, before anything heavy is imported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import CAUSAL, FAMILIES, save_tiny, save_tiny_causal, tiny_tokenizer
from transformers import CONFIG_MAPPING, AutoConfig, BertConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from morenas.base.errors import InputError
from morenas.base.hub import Need
from morenas.models import hub_need, resolve_model
from morenas.models.marks import marks_in
from morenas.models.source import _shipped_types
from morenas.tasks.spelling import marks_of


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def test_a_whole_folder_is_local_with_its_weights(folder: Path) -> None:
    source = resolve_model(str(folder))
    assert source.local
    assert [path.name for path in source.weights] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("missing", "named"),
    [("config.json", "config.json"), ("model.safetensors", "weights"), ("tokenizer.json", "tokenizer")],
)
def test_an_incomplete_folder_is_refused_by_what_it_lacks(folder: Path, missing: str, named: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(InputError, match=f"lacks .*{named}"):
        resolve_model(str(folder))


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_weights_cut_short_are_refused_by_file(folder: Path, keep: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        resolve_model(str(folder))


def test_weights_with_something_behind_them_are_refused_by_file(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match=r"model\.safetensors .* damaged"):
        resolve_model(str(folder))


@pytest.mark.parametrize("content", [b"PK\x03\x04 cut short", b"", b"version https://git-lfs.github.com/spec/v1"])
def test_a_torch_file_cut_short_is_refused_by_file(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(InputError, match=r"pytorch_model\.bin is no file of torch's, or is cut short"):
        resolve_model(str(folder))


@pytest.mark.parametrize("old", [False, True])
def test_a_whole_torch_file_is_found_of_whatever_age(folder: Path, old: bool) -> None:
    import torch

    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(2)}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not old)
    assert resolve_model(str(folder)).weights == (folder / "pytorch_model.bin",)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
def test_a_damaged_file_of_the_tokenizer_is_refused_by_name(folder: Path, file: str) -> None:
    (folder / file).write_text('{"version": "1.0", "model"')
    with pytest.raises(InputError, match=rf"{file}: the tokenizer's file is not JSON"):
        resolve_model(str(folder))


def test_an_adapter_beside_the_model_is_refused(folder: Path) -> None:
    """transformers puts it onto the model: what is then searched is not what the folder's weights are."""
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="holds an adapter too"):
        resolve_model(str(folder))


def test_a_model_of_reversible_layers_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "reformer"}')
    with pytest.raises(InputError, match=r"is a reformer, whose reversible layers give adapters .* no gradient"):
        resolve_model(str(folder))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("num_hidden_layers", 10**7, "num_hidden_layers=10,000,000, and its weights hold .* tensors"),
        ("hidden_size", 2**16, "hidden_size=65,536, and its weights hold no size above"),
        ("vocab_size", 2**40, "vocab_size="),
        ("intermediate_size", 2**33, "intermediate_size="),
        ("text_config", {"hidden_size": 2**40}, "hidden_size="),
        ("hidden_size", 25, "hidden_size=25, and none of its tensors has that width"),
        ("hidden_size", 70, "hidden_size=70, and none of its tensors has that width"),  # the number of positions
        ("d_model", 25, "d_model=25, and none"),
        ("vocab_size", 5, r"vocab_size=5, and embeddings.word_embeddings.weight has \d+ rows"),
        ("model_type", "nothing-known", "model_type='nothing-known', which this version of transformers does not know"),
    ],
)
def test_a_configuration_of_other_weights_is_refused_before_a_model_is_made(
    folder: Path, key: str, value: object, said: str
) -> None:
    change_config(folder, key, value)
    with pytest.raises(InputError, match=said):
        resolve_model(str(folder))


def change_config(folder: Path, key: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))


@pytest.mark.parametrize("family", [*FAMILIES, *CAUSAL])
def test_no_model_is_refused_for_its_sizes_or_its_type(family: str, tmp_path: Path) -> None:
    folder = save_tiny_causal(tmp_path, family) if family in CAUSAL else save_tiny(family, tmp_path)
    assert resolve_model(str(folder)).local


def test_a_type_that_a_plug_in_has_registered_is_known(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(BertConfig):
        model_type = "my-own-type"

    change_config(folder, "model_type", "my-own-type")
    monkeypatch.setattr(CONFIG_MAPPING, "_extra_content", {})
    AutoConfig.register("my-own-type", Own)
    assert resolve_model(str(folder)).local


def test_marks_are_read_from_the_files_of_the_tokenizer(folder: Path) -> None:
    assert marks_in(resolve_model(str(folder))) == ["[SEP]", "[CLS]", "[PAD]"]
    assert {*marks_in(resolve_model(str(folder)))} == {*marks_of(tiny_tokenizer())}
    (folder / "special_tokens_map.json").write_text(
        '{"eos_token": {"content": "</s>"}, "unk_token": "?", "bos_token": 1}'
    )
    assert marks_in(resolve_model(str(folder))) == ["</s>", "[SEP]", "[CLS]", "[PAD]"]


def test_weights_of_other_content_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 20)
    with pytest.raises(InputError, match="no safetensors file"):
        resolve_model(str(folder))


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    with pytest.raises(InputError, match="model-00001-of-00002"):
        resolve_model(str(folder))


@pytest.mark.parametrize(
    "header",
    [{"a": {"dtype": "F32"}}, {"a": [1]}, ["a"], {"a": {"data_offsets": "ab"}}],
    ids=lambda header: str(header),
)
def test_a_header_of_another_kind_is_refused_by_file(folder: Path, header: object) -> None:
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(InputError, match=r"model\.safetensors is no safetensors file"):
        resolve_model(str(folder))


def test_an_index_of_another_kind_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(InputError, match="the weight index is no JSON object"):
        resolve_model(str(folder))


@pytest.mark.parametrize("name", ["./gone", "../gone"])
def test_a_relative_path_is_never_taken_for_a_hub_name(name: str) -> None:
    assert hub_need(name) is None


@pytest.mark.parametrize("name", ["/no/such/folder", "./gone", "../gone/model", "a/b/c", "no such model"])
def test_what_can_only_be_a_path_is_refused_without_asking_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Need) -> None:
        raise AssertionError("asked the hub")

    monkeypatch.setattr("morenas.models.source.require_hub", never)
    with pytest.raises(InputError, match="no folder here"):
        resolve_model(name)


def test_a_file_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="is a file"):
        resolve_model(str(folder / "config.json"))


@pytest.mark.parametrize("name", ["roberta-base", "FacebookAI/roberta-base"])
def test_a_hub_name_asks_the_hub_and_names_the_ways_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Need] = []
    monkeypatch.setattr("morenas.models.source.require_hub", asked.append)
    source = resolve_model(name)
    assert source.location == name and not source.local
    assert (asked[0].kind, asked[0].name) == ("model", name)
    assert "model.name_or_path=" in asked[0].way_out


@pytest.mark.parametrize(
    ("model_type", "said"), [("bert", "found"), ("nothing-known", "model_type='nothing-known', which this version")]
)
def test_a_model_is_found_or_refused_without_anything_heavy(folder: Path, model_type: str, said: str) -> None:
    change_config(folder, "model_type", model_type)
    done = subprocess.run([sys.executable, "-c", LOOK, str(folder)], capture_output=True, text=True, check=True)
    answer, imported = done.stdout.strip().splitlines()
    assert said in answer and imported == "[]"


LOOK = """
import sys
from morenas.base.errors import InputError
from morenas.models import resolve_model
try:
    print("found", resolve_model(sys.argv[1]))
except InputError as error:
    print(error)
print([name for name in ("torch", "transformers", "peft", "datasets", "huggingface_hub") if name in sys.modules])
"""


def test_every_type_that_transformers_knows_is_found_in_its_source() -> None:
    shipped = _shipped_types()
    assert len(CONFIG_MAPPING_NAMES) > 100 and not [name for name in CONFIG_MAPPING_NAMES if f'"{name}"' not in shipped]
