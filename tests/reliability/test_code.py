"""Pickles and code in the places where a file can hide them: none runs."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import LOADING, Evil, refuses, safetensors
from omegaconf import OmegaConf
from tiny_runs import composed

from morenas.base.errors import InputError
from morenas.base.tensors import load_tensors
from morenas.models import load_pretrained
from morenas.run.directory import RunDirectory
from morenas.run.reading import read_record
from morenas.tasks.sources.tables import READERS, read_table
from morenas.tracking import report


def runs_code(read: Callable[[], object], mark: Path) -> bool:
    """Whether code has run when a reader is through; it may refuse, in whatever words it has."""
    try:
        read()
    except Exception as error:
        assert not isinstance(error, AssertionError)
    return mark.exists()


@pytest.mark.parametrize("ending", READERS)
def test_no_pickle_in_a_data_file_runs(ending: str, mark: Path, tmp_path: Path) -> None:
    path = tmp_path / f"train{ending}"
    path.write_bytes(pickle.dumps(Evil(mark)))
    assert refuses(lambda: read_table(path)) and not mark.exists()


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_no_pickle_in_a_checkpoint_of_tensors_runs(protocol: int, mark: Path, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    for data in (
        pickle.dumps(Evil(mark), protocol=protocol),
        safetensors({"__metadata__": {"info": pickle.dumps(Evil(mark), protocol=0).decode("latin-1")}}),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError):
            load_tensors(path)
        assert not mark.exists()


def test_no_pickle_among_the_weights_of_a_model_runs(mark: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save({"a": Evil(mark)}, folder / "pytorch_model.bin")
    assert refuses(lambda: load_pretrained(str(folder), num_labels=2), LOADING) and not mark.exists()


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("config.json", "AutoConfig"),
        ("config.json", "AutoModelForSequenceClassification"),
        ("config.json", "AutoModelForCausalLM"),
        ("tokenizer_config.json", "AutoTokenizer"),
    ],
)
def test_no_code_of_a_model_folder_runs(
    file: str, key: str, mark: Path, tiny_model: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # whoever is asked, says yes
    kind = "generation" if key == "AutoModelForCausalLM" else "classification"
    folder = Path(shutil.copytree(llama if kind == "generation" else tiny_model, tmp_path / "model"))
    (folder / "evil.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Evil: pass\n")
    document = json.loads((folder / file).read_text())
    names = ["evil.Evil", "evil.Evil"] if key == "AutoTokenizer" else "evil.Evil"
    for changes in ({"model_type": "evil"}, {}):
        (folder / file).write_text(json.dumps({**document, **changes, "auto_map": {key: names}}))
        assert not runs_code(lambda: load_pretrained(str(folder), 2, kind=kind), mark)


def test_no_pickle_in_a_trajectory_runs(mark: Path, tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    objects: Any = np.array([Evil(mark)], dtype=object)
    np.savez(tmp_path / "search" / "trajectory.npz", probs=objects, groups=objects, choices=objects)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        report._search(tmp_path, {"budget": None})
    assert not mark.exists()


def test_what_stands_in_a_runs_record_is_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpolation would read the environment of whoever goes on with another's run."""
    from morenas.run.composing import to_config
    from morenas.run.directory import literal
    from morenas.search.config import SearchRunConfig

    monkeypatch.setenv("SECRET", "of mine")
    config = composed("search", ["+task=demo"])
    directory = RunDirectory(tmp_path / "run")
    directory.begin("search", config, ["+task=demo"])
    path = tmp_path / "run" / ".hydra" / "run.json"
    document = json.loads(path.read_text())
    for text in ("${oc.env:SECRET}", "a ${oc.env:SECRET} b", "\\${oc.env:SECRET}", "${", "${nothing}"):
        document["config"]["tracking"]["wandb"]["project"] = text
        path.write_text(json.dumps(document))
        again = to_config(OmegaConf.create(literal(read_record(tmp_path / "run").config)), SearchRunConfig)
        assert again.tracking.wandb.project == text
