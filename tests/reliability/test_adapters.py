"""Hostile adapters: a reader takes them, or refuses them by one error, quickly."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hostile import TEXTS, changed, refuses, safetensors, try_all, written
from peft import LoraConfig, get_peft_model
from test_documents import HEADERS, WHOLE
from tiny_runs import read

from morenas.adapters import MoReConfig
from morenas.base.errors import InputError
from morenas.export.base import CONFIG, WEIGHTS, load_other, lora_settings, put_on, read_tensors
from morenas.export.forms import write_trained_lora
from morenas.models import load_pretrained

TARGETS = ["query", "value"]
READERS: dict[str, tuple[str, Callable[[Any, Path], object]]] = {
    "more": ("more", lambda model, folder: put_on(model, folder)),
    "lora": ("lora", lambda model, folder: load_other(model, folder)),
    "lora as it is": ("lora", lambda model, folder: lora_settings(folder)),
    "lora for servers": ("rslora", lambda model, folder: write_trained_lora(folder, model, folder.parent)),
}
"""Reader to the kind of adapter that it reads, and what it does."""


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Any:
    return load_pretrained(str(tiny_model), 2).model


@pytest.fixture(scope="module")
def adapters(base: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of an adapter of each kind."""
    configs = {
        "lora": LoraConfig(r=2, target_modules=TARGETS, modules_to_save=["classifier"]),
        "rslora": LoraConfig(r=2, target_modules=TARGETS, use_rslora=True),
        "more": MoReConfig(nblocks=2, blk_r=2, target_modules=TARGETS, modules_to_save=["classifier"]),
    }
    folder = tmp_path_factory.mktemp("adapters")
    for name, config in configs.items():
        get_peft_model(copy.deepcopy(base), config).save_pretrained(str(folder / name))
    return folder


@pytest.fixture
def check(base: Any, adapters: Path, tmp_path: Path) -> Callable[[str, Any], None]:
    """Read an adapter that has another configuration."""

    def check(reader: str, document: Any) -> None:
        kind, read_it = READERS[reader]
        folder = tmp_path / "out" / kind
        shutil.copytree(adapters / kind, folder, dirs_exist_ok=True)
        written(folder / CONFIG, document)
        refuses(lambda: read_it(copy.deepcopy(base), folder))

    return check


@pytest.mark.parametrize("reader", READERS)
def test_adapters_as_they_were_saved_are_read(reader: str, base: Any, adapters: Path, tmp_path: Path) -> None:
    kind, read_it = READERS[reader]
    folder = Path(shutil.copytree(adapters / kind, tmp_path / "out" / kind))
    assert read_it(copy.deepcopy(base), folder)


@pytest.mark.parametrize("reader", READERS)
def test_a_changed_adapter_is_taken_or_refused(reader: str, adapters: Path, check: Callable[[str, Any], None]) -> None:
    document = read(adapters / READERS[reader][0] / CONFIG)
    for text in TEXTS:
        check(reader, text)
    assert try_all(changed(document), 12, lambda one: check(reader, one))


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_many_changed_adapters_are_taken_or_refused(
    reader: str, adapters: Path, check: Callable[[str, Any], None]
) -> None:
    document = read(adapters / READERS[reader][0] / CONFIG)
    assert try_all(changed(document), 600, lambda one: check(reader, one)) >= 300


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_weights_of_no_adapter_are_refused(header: Any, base: Any, adapters: Path, tmp_path: Path) -> None:
    """Also those that are tensors: they are others than the adapter has."""
    for kind, load in (("lora", load_other), ("more", put_on)):
        folder = Path(shutil.copytree(adapters / kind, tmp_path / kind))
        (folder / WEIGHTS).write_bytes(safetensors(header))
        assert refuses(partial(load, copy.deepcopy(base), folder))
        assert refuses(partial(read_tensors, folder / WEIGHTS)) == (header not in WHOLE)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "SHADOW", "shadow_model": "a/b"}, "of type 'SHADOW', which has no merged form"),
        ({"peft_type": "XLORA", "adapters": {"0": "a/b"}}, "of type 'XLORA'"),
        ({"peft_type": "PROMPT_TUNING", "tokenizer_kwargs": {"trust_remote_code": True}}, "of type 'PROMPT_TUNING'"),
        ({"peft_type": "MINE"}, "of type 'MINE'"),
        ({"megatron_config": {"a": 1}, "megatron_core": "not_mine"}, "names code of Megatron"),
    ],
)
def test_what_names_other_models_or_code_is_refused(
    changes: dict[str, Any], said: str, base: Any, adapters: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(adapters / "lora", tmp_path / "lora"))
    written(folder / CONFIG, read(folder / CONFIG) | changes)
    with pytest.raises(InputError, match=said):
        load_other(copy.deepcopy(base), folder)
