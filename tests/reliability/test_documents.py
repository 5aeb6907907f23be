"""Hostile documents: a reader takes them, or refuses them by one error, within two seconds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from hostile import TEXTS, changed, damaged, refuses, safetensors, try_all, written
from hypothesis import strategies as st
from run_documents import RESULTS

from morenas.base.errors import InputError
from morenas.base.files import parse_json, read_object
from morenas.base.tensors import load_tensors
from morenas.benchmark.run import read_rows
from morenas.compare import table
from morenas.finetune.checkpoints import verify
from morenas.models.source import resolve_model
from morenas.models.targets import target_linears
from morenas.run.phases import Meter
from morenas.run.reading import read_all_results, read_finished, read_record, read_unfinished
from morenas.space import Architecture
from morenas.tasks.sources.tables import READERS, read_table

ARCHITECTURE: dict[str, Any] = {
    "format": "morenas.architecture/1",
    "base_model": "demo",
    "link": "cyclic",
    "modules": {"layer.0": {"nblocks": 2, "blk_r": 1, "in_features": 8, "out_features": 8}},
    "params": 16,
    "params_fraction": 0.1,
    "budget": {"params": 20, "request": {"fraction": 0.1}},
    "search": {"steps": 3},
}
PHASE = {"name": "search", "seconds": 1.5, "steps": 3, "peak_memory_bytes": 5, "memory_over_model_bytes": None}
RECORD: dict[str, Any] = {
    "command": "search",
    "config": {"task": {"kind": "classification"}, "model": {"name_or_path": "demo"}},
    "overrides": ["+task=demo"],
}
MANIFEST: dict[str, Any] = {
    "format": "morenas.checkpoint/1",
    "files": {"state": {"bytes": 0, "sha256": "0"}},
    "info": {"threads": 1},
}
INDEX: dict[str, Any] = {"metadata": {}, "weight_map": {"a": "model-1.safetensors"}}


def _record(folder: Path) -> Callable[[], object]:
    (folder / "adapter").mkdir(exist_ok=True)
    return lambda: [read_record(folder), read_finished(folder), read_unfinished(folder, "search")]


def _model(folder: Path) -> Callable[[], object]:
    for name, text in (("config.json", "{}"), ("tokenizer.json", "{}"), ("model.safetensors.index.json", "{}")):
        if not (folder / name).exists():
            (folder / name).write_text(text)
    return lambda: resolve_model(str(folder))


DOCUMENTS: dict[str, tuple[str, Any, Callable[[Path], Callable[[], object]]]] = {
    "architecture": (
        "architecture.json",
        ARCHITECTURE,
        lambda folder: lambda: Architecture.from_json(folder / "architecture.json").document(),
    ),
    "results": (
        "results.json",
        {"format": "morenas.results/1", **RESULTS},
        lambda folder: (
            lambda: [write(table.compare([folder])) for write in (table.to_markdown, table.to_csv, table.to_json)]
        ),
    ),
    "record": (".hydra/run.json", RECORD, _record),
    "phases": ("phases.json", [PHASE], lambda folder: lambda: Meter(folder / "phases.json").save()),
    "manifest": ("manifest.json", MANIFEST, lambda folder: lambda: verify(folder)),
    "weight index": ("model.safetensors.index.json", INDEX, _model),
    "model configuration": ("config.json", {"model_type": "bert"}, _model),
    "rows of a bench": (
        "rows.json",
        {"rows": [{"table": "a"}]},
        lambda folder: lambda: read_rows(folder / "rows.json"),
    ),
    "any object": ("any.json", {"a": {"b": [1]}}, lambda folder: lambda: read_object(folder / "any.json", "document")),
}
"""Name to file, a valid document, and what reads the file of a folder."""


TAKEN = {("phases", "[]"), ("any object", '{"a": "\\ud800"}')}
"""Texts that are documents of a kind after all: no phase yet, and JSON of half a character."""


def check(name: str, document: Any, folder: Path) -> bool:
    """Whether the reader of a kind of document refuses one."""
    file, _, read = DOCUMENTS[name]
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    written(folder / file, document)
    return refuses(lambda: read(folder)())


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_no_document_is_refused(name: str, text: str, tmp_path: Path) -> None:
    assert check(name, text, tmp_path) == ((name, text) not in TAKEN)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_link_to_no_file_and_a_pipe_are_refused(name: str, tmp_path: Path) -> None:
    file, _, read = DOCUMENTS[name]
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    for make in (lambda: path.symlink_to("/dev/zero"), lambda: os.mkfifo(path), lambda: path.mkdir()):
        make()
        assert refuses(lambda: read(tmp_path)())
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_changed_document_is_taken_or_refused(name: str, tmp_path: Path) -> None:
    assert try_all(changed(DOCUMENTS[name][1]), 12, lambda document: check(name, document, tmp_path)) > 6


@pytest.mark.slow
@pytest.mark.parametrize("name", DOCUMENTS)
def test_many_changed_documents_are_taken_or_refused(name: str, tmp_path: Path) -> None:
    different = try_all(changed(DOCUMENTS[name][1]), 1000, lambda document: check(name, document, tmp_path))
    assert different >= 300


ROWS = st.lists(
    st.dictionaries(st.sampled_from(["text", "label", "x"]), st.text(max_size=8) | st.integers(), max_size=3)
)


def whole_file(ending: str, folder: Path) -> bytes:
    """A file that is as it should be."""
    rows = pandas.DataFrame(
        {"text": [f"text {i} é" for i in range(9)], "label": range(9), "more": [[1, 2], [], [3]] * 3}
    )
    path = folder / f"whole{ending}"
    if ending == ".parquet":
        rows.to_parquet(path)
    elif ending in (".json", ".jsonl"):
        rows.to_json(path, orient="records", lines=ending == ".jsonl")
    else:
        rows.to_csv(path, index=False, sep="\t" if ending == ".tsv" else ",")
    assert read_table(path).rows
    return path.read_bytes()


def data(examples: int, ending: str, folder: Path) -> int:
    def check_file(content: bytes) -> None:
        path = folder / f"train{ending}"
        path.write_bytes(content)
        refuses(lambda: read_table(path))

    rows = ROWS.map(lambda rows: "\n".join(map(json.dumps, rows)).encode())
    return try_all(st.one_of(st.binary(max_size=200), rows, damaged(whole_file(ending, folder))), examples, check_file)


@pytest.mark.parametrize("ending", [*READERS, ".csv.gz"])
def test_any_bytes_are_rows_or_refused(ending: str, tmp_path: Path) -> None:
    assert data(25, ending, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [*READERS, ".csv.gz"])
def test_many_bytes_are_rows_or_refused(ending: str, tmp_path: Path) -> None:
    assert data(2000, ending, tmp_path) >= 300


WHOLE: list[Any] = [{"__metadata__": {"info": "{}"}, "a": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}}]
"""Headers that go with 64 bytes of data."""
HEADERS: list[Any] = [
    *WHOLE,
    {},
    {"__metadata__": {"info": "{}"}},
    {"__metadata__": {"info": "[" * 100_000}},
    {"__metadata__": {"info": "[1]"}},
    {"__metadata__": {"info": "NaN"}},
    {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 64]}},
    {"a": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 64]}},
    {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 64]}},
    {"a": {"dtype": "X99", "shape": [16], "data_offsets": [0, 64]}},
    {"a": {"dtype": "F32", "shape": [16], "data_offsets": [64, 0]}},
    b"{" * 1000,
    b"\xff\xfe",
]


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_a_header_that_does_not_go_with_its_data_is_refused(header: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors(header))
    assert refuses(lambda: load_tensors(path)) == (header not in WHOLE)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    assert refuses(lambda: resolve_model(str(tmp_path))) == (header not in WHOLE)


@pytest.mark.parametrize("pattern", ["(a+)+b", "(.*)*!", "(x|xx)+y", "(", "[", "*"])
def test_a_pattern_that_would_hang_or_is_none_is_refused(pattern: str) -> None:
    from torch import nn

    model = nn.ModuleDict({"a" * 40 + "x" * 40: nn.Linear(2, 2)})
    assert refuses(lambda: target_linears(model, pattern))


@pytest.mark.parametrize("shape", [(2**60, 1), (1, 2**60), (2**30, 2**30)])
def test_a_shape_that_no_memory_holds_is_refused(shape: tuple[int, int], tmp_path: Path) -> None:
    module = dict(zip(("nblocks", "blk_r"), shape, strict=True)) | {"in_features": 8, "out_features": 8}
    path = written(tmp_path / "architecture.json", ARCHITECTURE | {"modules": {"a": module}})
    with pytest.raises(InputError, match=r"architecture\.json.*(more than the layer|is no number)"):
        Architecture.from_json(path)


def test_what_is_nested_as_deep_as_allowed_is_read() -> None:
    assert parse_json("[" * 64 + "]" * 64) and parse_json("{}") == {}
    with pytest.raises(ValueError, match="nested"):
        parse_json("[" * 65 + "]" * 65)


def test_a_reader_meets_what_a_run_writes(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    written(tmp_path / ".hydra/run.json", RECORD)
    written(tmp_path / "results.json", {"format": "morenas.results/1", **RESULTS})
    assert read_record(tmp_path).command == "search" and read_all_results([tmp_path])
    assert Architecture.from_json(written(tmp_path / "a.json", ARCHITECTURE)).num_parameters() == 16
    assert Meter(written(tmp_path / "p.json", [PHASE])).rows() == [PHASE]
