"""What PEFT and transformers alone make of an export: ``plain_peft.py JOBS``, where morenas cannot be imported.

JOBS is a file ``{"exports": [[form, folder, base] ...], "tests": <JSON lines with text and label>, "out": <file>}``. A
form is "lora", "auto" (PEFT finds the base model by itself) or "merged". Writes a JSON list of accuracies and logits.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from peft import AutoPeftModelForSequenceClassification, PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def load(form: str, folder: str, base: str) -> Any:
    """A classifier of two classes."""
    if form == "merged":
        return AutoModelForSequenceClassification.from_pretrained(folder)
    if form == "auto":
        return AutoPeftModelForSequenceClassification.from_pretrained(folder)
    return PeftModel.from_pretrained(
        AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, dtype=torch.float32), folder
    )


@torch.no_grad()
def measure(form: str, folder: str, base: str, tests: str) -> tuple[float, list[list[float]]]:
    """Accuracy and logits on a test set."""
    rows = [json.loads(line) for line in Path(tests).read_text().splitlines()]
    model = load(form, folder, base).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder if form == "merged" else base)
    columns = [key for key in rows[0] if key != "label"]
    logits: list[list[float]] = []
    for start in range(0, len(rows), 64):
        batch = rows[start : start + 64]
        texts = [[row[key] for row in batch] for key in columns]
        tokens = tokenizer(*texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
        logits += model(**tokens).logits.tolist()
    found = torch.tensor(logits).argmax(dim=1).tolist()
    return sum(label == row["label"] for label, row in zip(found, rows, strict=True)) / len(rows), logits


def main(jobs: str) -> None:
    torch.set_num_threads(1)
    try:
        import morenas  # noqa: F401
    except ImportError:
        work = json.loads(Path(jobs).read_text())
        found = [measure(form, folder, base, work["tests"]) for form, folder, base in work["exports"]]
        Path(work["out"]).write_text(json.dumps(found))
    else:
        sys.exit("morenas can be imported")


if __name__ == "__main__":
    sys.modules["morenas"] = None  # type: ignore[assignment]
    main(sys.argv[1])
