"""``python -m morenas.finetune``, whole, in this process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import save_tiny, shallow, tiny_classifier
from tiny_runs import CommandLine, read, task_words

from morenas.base.files import sha256
from morenas.export.command import ExportConfig, export
from morenas.models import target_linears
from morenas.models.heads import find_head
from morenas.tracking.table import method_words


@pytest.fixture
def words(tiny_task: Path, tiny_model: Path, tmp_path: Path) -> list[str]:
    return task_words(tiny_task, tiny_model, tmp_path / "run")


@pytest.mark.parametrize("method", ["dora", "adalora", "gralora", "boft", "full", "head"])
def test_every_baseline_is_measured_in_the_same_harness(
    command: CommandLine, words: list[str], tmp_path: Path, method: str
) -> None:
    done = command("finetune", *words, f"method={method}", "training.max_steps=4", "training.evals=1")
    assert done.status == 0, done.err
    results = read(tmp_path / "run" / "results.json")
    (row,) = results["methods"]
    assert (results["kind"], row["name"], row["steps"]) == ("finetune", method, 4)
    assert (row["adapter_params"] > 0) == (method != "head") and row["head_params"] == 2 * 16 + 2
    assert row["metrics"].keys() == {"test", "select"} and list((tmp_path / "run" / "adapter").glob("*.safetensors"))


def test_parameters_and_targets_of_a_method_are_those_that_were_asked_for(
    command: CommandLine, words: list[str], tmp_path: Path
) -> None:
    given = ["method=lora", "method.rank=3", "method.alpha=5", "method.target_modules=[query,value]"]
    model = f"model.name_or_path={save_tiny('bert', tmp_path / 'two-layers')}"
    kept = [word for word in words if not word.startswith("model.name_or_path")]
    done = command("finetune", *kept, model, *given, "method.exclude_modules='.*layer.0.*value'")
    assert done.status == 0, done.err
    adapter = read(tmp_path / "run" / "adapter" / "adapter_config.json")
    assert (adapter["peft_type"], adapter["r"], adapter["lora_alpha"]) == ("LORA", 3, 5)
    linears = target_linears(tiny_classifier(), ["query", "value"], find_head(tiny_classifier()))
    expected = sum(
        3 * sum(shape) for name, shape in linears.items() if name != "bert.encoder.layer.0.attention.self.value"
    )
    assert read(tmp_path / "run" / "results.json")["methods"][0]["adapter_params"] == expected


def test_one_monarch_shape_is_trained_on_any_targets_and_exported(
    command: CommandLine, words: list[str], tmp_path: Path
) -> None:
    shape = ["method=more", "method.nblocks=4", "method.blk_r=2", "method.link=monarch"]
    done = command("finetune", *words, *shape, "method.target_modules=[query,output.dense]", "training.max_steps=1")
    assert done.status == 0, done.err
    (row,) = read(tmp_path / "run" / "results.json")["methods"]
    adapter = read(tmp_path / "run" / "adapter" / "adapter_config.json")
    assert (adapter["nblocks"], adapter["blk_r"], adapter["link"]) == (4, 2, "monarch")
    targets = target_linears(shallow(), ["query", "output.dense"], find_head(shallow()))
    assert row["adapter_params"] == sum(2 * (n + m) for n, m in targets.values())  # N blocks, r x (n + m) / N each
    assert method_words(row) == "MoRe, N=4 r=2"
    exported = export(ExportConfig(str(tmp_path / "run"), "lora", str(tmp_path / "lora")))
    assert exported.ranks == dict.fromkeys(targets, 8)


def test_both_test_sets_of_mnli_are_measured(command: CommandLine, tiny_model: Path, tmp_path: Path) -> None:
    for name, count in (("train", 60), ("validation_matched", 9), ("validation_mismatched", 12)):
        rows = ({"premise": f"{name} {i}", "hypothesis": "cat", "label": i % 3} for i in range(count))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    unwanted = ("+task", "task.text_columns")
    words = [word for word in task_words(tmp_path, tiny_model, tmp_path / "run") if not word.startswith(unwanted)]
    done = command("finetune", "+task=glue/mnli", *words, "method=head", "training.max_steps=1")
    assert done.status == 0, done.err
    results = read(tmp_path / "run" / "results.json")
    assert list(results["methods"][0]["metrics"]) == ["test_matched", "test_mismatched", "select"]
    assert results["split"] == "test_matched"
    assert (results["data"]["sizes"]["test_matched"], results["data"]["sizes"]["test_mismatched"]) == (9, 12)
    for name, count in (("test_matched", 9), ("test_mismatched", 12)):
        kept = np.load(tmp_path / "run" / "predictions" / f"finetune-{name}.npz")
        assert kept["labels"].tolist() == [i % 3 for i in range(count)] and kept["logits"].shape == (count, 3)
        accuracy = results["methods"][0]["metrics"][name]["accuracy"]
        assert (kept["logits"].argmax(axis=1) == kept["labels"]).mean() == pytest.approx(accuracy)


def test_interrupted_and_resumed_it_ends_with_the_same_bytes(
    command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path
) -> None:
    class Killed(BaseException):
        """Neither an error nor an interruption: nothing may catch it."""

    def kill(*_: Any) -> None:
        raise Killed

    def start(name: str) -> list[str]:
        return [*task_words(tiny_task, tiny_model, tmp_path / name), "method=lora", "method.dropout=0.1"]

    assert command("finetune", *start("whole")).status == 0
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(sys.modules["morenas.finetune.loop"], "keep_only", kill)  # the first checkpoint is whole by then
        command("finetune", *start("parts"))
    torch.manual_seed(7)
    assert command("finetune", f"resume={tmp_path / 'parts'}").status == 0
    whole, parts = (read(tmp_path / name / "results.json") for name in ("whole", "parts"))
    assert {**parts["methods"][0], "seconds": 0} == {**whole["methods"][0], "seconds": 0}
    weights = [tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("whole", "parts")]
    assert sha256(weights[0]) == sha256(weights[1])
