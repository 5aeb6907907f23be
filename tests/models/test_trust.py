"""Code that a model's folder brings never runs, and nobody is asked, unless that is set by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import save_tiny, save_tiny_causal

from morenas.base.errors import InputError
from morenas.models import load_pretrained
from morenas.run.launch import check_trust
from morenas.run.reading import RunRecord

CODE = """
from pathlib import Path
from transformers import {kind}Config, {kind}For{task}, PreTrainedTokenizerFast
Path({marker!r}).touch()
class StrangeConfig({kind}Config):
    model_type = "strange"
class Strange({kind}For{task}):
    config_class = StrangeConfig
class StrangeTokenizer(PreTrainedTokenizerFast):
    pass
"""
HERE = {
    "AutoConfig": "strange.StrangeConfig",
    "AutoModelForSequenceClassification": "strange.Strange",
    "AutoModelForCausalLM": "strange.Strange",
}


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once the code has run."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    return tmp_path / "ran"


def change(path: Path, **entries: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def strange(folder: Path, marker: Path, causal: bool = False, model_type: str | None = "strange") -> Path:
    """A folder with code of its own; without a type of its own transformers knows the model by itself."""
    saved = save_tiny_causal(folder, "llama") if causal else save_tiny("bert", folder)
    kind, task = ("Llama", "CausalLM") if causal else ("Bert", "SequenceClassification")
    (saved / "strange.py").write_text(CODE.format(kind=kind, task=task, marker=str(marker)))
    change(saved / "config.json", auto_map=HERE, **({"model_type": model_type} if model_type else {}))
    return saved


def strange_tokenizer(folder: Path, marker: Path) -> Path:
    saved = strange(folder, marker, model_type=None)
    change(
        saved / "tokenizer_config.json",
        tokenizer_class="StrangeTokenizer",
        auto_map={"AutoTokenizer": [None, "strange.StrangeTokenizer"]},
    )
    return saved


LOADERS: dict[str, Callable[[Path], object]] = {
    "classifier": lambda folder: load_pretrained(str(folder), 2),
    "language model": lambda folder: load_pretrained(str(folder), 2, kind="generation"),
}


@pytest.mark.parametrize("loader", ["classifier", "language model"])
def test_a_model_that_needs_its_folder_s_code_is_refused(loader: str, marker: Path, tmp_path: Path) -> None:
    folder = strange(tmp_path / "model", marker, causal=loader == "language model")
    with pytest.raises(InputError, match=r"its model needs code .*model\.trust_remote_code=true"):
        LOADERS[loader](folder)
    assert not marker.exists()


def test_a_model_that_transformers_knows_runs_none_of_its_folder_s_code(marker: Path, tmp_path: Path) -> None:
    load_pretrained(str(strange(tmp_path / "model", marker, model_type=None)), 2)
    assert not marker.exists()


def test_a_tokenizer_runs_none_of_its_folder_s_code(marker: Path, tmp_path: Path) -> None:
    folder = strange_tokenizer(tmp_path / "model", marker)
    try:
        load_pretrained(str(folder), 2)
    except InputError as error:
        assert "trust_remote_code" in str(error)
    assert not marker.exists()


def test_code_runs_where_that_is_set_by_hand(marker: Path, tmp_path: Path) -> None:
    loaded = load_pretrained(str(strange(tmp_path / "model", marker)), 2, trust_remote_code=True)
    assert type(loaded.model).__name__ == "Strange" and marker.exists()


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("said", [False, True])
def test_a_run_s_record_alone_trusts_nobody(recorded: bool, said: bool, tmp_path: Path) -> None:
    record = RunRecord("search", {"model": {"trust_remote_code": recorded}}, [])
    words = [f"resume={tmp_path}"] + ["model.trust_remote_code=true"] * said
    if recorded == said:
        check_trust(tmp_path, record, words)
        return
    with pytest.raises(InputError, match="say so again" if recorded else "leave it out"):
        check_trust(tmp_path, record, words)
