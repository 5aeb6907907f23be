"""Hostile folders of models: a model is loaded, or refused by one error."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile import TEXTS, changed, refuses, try_all, written
from tiny_runs import read

from morenas.models import load_pretrained

FILES = ("config.json", "tokenizer_config.json", "tokenizer.json")
KINDS = ("classification", "generation")


@pytest.fixture
def check(tiny_model: Path, llama: Path, tmp_path: Path) -> Callable[[str, str, Any], None]:
    """Load a model of which one file is another."""
    sources = {"classification": tiny_model, "generation": llama}
    folders = {kind: Path(shutil.copytree(source, tmp_path / kind)) for kind, source in sources.items()}

    def check(kind: str, file: str, document: Any) -> None:
        whole = (folders[kind] / file).read_bytes()
        written(folders[kind] / file, document)
        refuses(lambda: load_pretrained(str(folders[kind]), 2, kind=kind))
        (folders[kind] / file).write_bytes(whole)

    return check


def document(kind: str, file: str, tiny_model: Path, llama: Path) -> Any:
    return read((tiny_model if kind == "classification" else llama) / file)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", FILES)
def test_a_changed_model_is_loaded_or_refused(
    file: str, kind: str, tiny_model: Path, llama: Path, check: Callable[[str, str, Any], None]
) -> None:
    for text in TEXTS:
        check(kind, file, text)
    whole = document(kind, file, tiny_model, llama)
    assert try_all(changed(whole), 12, lambda one: check(kind, file, one))
    if file == "tokenizer_config.json":
        check(kind, file, {**whole, "model_max_length": "${oc.env:HOME}"})


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", FILES)
def test_many_changed_models_are_loaded_or_refused(
    file: str, kind: str, tiny_model: Path, llama: Path, check: Callable[[str, str, Any], None]
) -> None:
    whole = document(kind, file, tiny_model, llama)
    assert try_all(changed(whole), 600, lambda one: check(kind, file, one)) >= 300
