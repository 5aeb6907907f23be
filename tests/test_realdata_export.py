"""A real pretrained model on a real task: what a run measures is what plain PEFT measures, in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from forked import Forked
from tiny_exports import export, plain
from tiny_runs import CommandLine, read

from morenas.models import load_pretrained, target_linears
from morenas.space import Architecture, ModuleShape

pytestmark = pytest.mark.realdata


def small_architecture(model: Path) -> Architecture:
    """Four blocks of rank 1 on every query and value."""
    linears = target_linears(load_pretrained(str(model), 2).model, ["query", "value"])
    modules = {name: ModuleShape(4, 1, *shape) for name, shape in linears.items()}
    return Architecture(model.name, "cyclic", modules, 0.001)


def first_rows(real: Path, folder: Path) -> list[dict[str, Any]]:
    """Copy the beginnings of a task's files; the test rows."""
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        lines = (real / f"{split}.jsonl").read_text().splitlines()[:60]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return [json.loads(line) for line in lines]


def test_rte_by_minilm_has_the_same_accuracy_to_the_last_digit(
    command: CommandLine, forked: Forked, real_data: Path, real_models: Path, tmp_path: Path
) -> None:
    model = real_models / "all-MiniLM-L6-v2-fp16"
    if not model.is_dir():
        pytest.skip(f"no real model: {model} is not there")
    small_architecture(model).to_json(tmp_path / "architecture.json")
    rows = first_rows(real_data / "glue" / "rte", tmp_path / "glue" / "rte")
    words = ["+task=glue/rte", f"task.data_dir={tmp_path / 'glue'}"]
    words += ["model=local", f"model.name_or_path={model}", f"architecture={tmp_path / 'architecture.json'}"]
    words += ["training.max_steps=3", "training.evals=1", "training.batch_size=8", "device=cpu", "threads=1"]
    done = command("finetune", *words, "tracking=local", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.status == 0, done.err
    export(f"run={tmp_path / 'run'}", "to=lora", f"out={tmp_path / 'lora'}")
    texts = [{"premise": row["sentence1"], "hypothesis": row["sentence2"], "label": row["label"]} for row in rows]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, texts)))
    exports = [("lora", tmp_path / "lora", model)]
    ((accuracy, logits),) = plain(forked, exports, tmp_path / "test.jsonl", tmp_path)
    assert len(logits) == len(rows)
    assert accuracy == read(tmp_path / "run" / "results.json")["methods"][0]["metrics"]["test"]["accuracy"]
