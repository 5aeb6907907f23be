"""A head that reads the mean of all tokens reads it still after an export, and the card says how."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny_exports import export
from tiny_runs import CommandLine, task_words
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from morenas.models import load_pretrained
from morenas.models.pooling import pool_by_mean


@pytest.mark.parametrize("to", ["lora", "merged"])
def test_an_export_and_the_lines_of_its_card_compute_what_was_measured(
    command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path, to: str
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    words = task_words(tiny_task, tiny_model, run)
    assert command("finetune", *words, "method=lora", "model.pooling=mean").status == 0
    results = json.loads((run / "results.json").read_text())
    assert results["model"]["pooling"] == "mean"
    if to == "merged":
        export(f"run={run}", "to=merged", f"out={out}")
        card = (out / "README.md").read_text()
        assert "pool_by_mean(model)" in card and "mean of all tokens" in card
        model = AutoModelForSequenceClassification.from_pretrained(out)
        again = load_pretrained(str(out), 2).model.eval()  # its config has recorded it
    else:
        base = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2)
        model = PeftModel.from_pretrained(base, run / "adapter").base_model.model
    pool_by_mean(model)
    rows = [json.loads(line) for line in (tiny_task / "validation.jsonl").read_text().splitlines()]
    batch = AutoTokenizer.from_pretrained(tiny_model)([row["text"] for row in rows], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model.eval()(**batch).logits
        if to == "merged":
            torch.testing.assert_close(again(**batch).logits, logits)
    right = (logits.argmax(-1) == torch.tensor([row["label"] for row in rows])).float().mean()
    assert float(right) == pytest.approx(results["methods"][0]["metrics"]["test"]["accuracy"])
