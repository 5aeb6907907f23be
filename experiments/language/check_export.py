"""Compare a language model's exports with its native adapter on real prompts: ``check_export.py <run directory>``.

The LoRA and the merged model are loaded in a process that cannot import morenas. Prints the largest difference of
logits in float32, how large the logits are, and how far the native adapter itself is from its logits in float64.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

RECORDS, TOKENS = 32, 256  # of the first test records


def base_model(name: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()


@torch.no_grad()
def logits(model: Any, prompts: list[list[int]]) -> list[torch.Tensor]:
    return [model(input_ids=torch.tensor([ids])).logits[0] for ids in prompts]


def plain(jobs: str) -> None:
    """Logits of both exports, without morenas."""
    sys.modules["morenas"] = None  # type: ignore[assignment]
    work = json.loads(Path(jobs).read_text())
    lora = PeftModel.from_pretrained(base_model(work["base"]), work["lora"])
    found = {"lora": logits(lora, work["prompts"]), "merged": logits(base_model(work["merged"]), work["prompts"])}
    torch.save(found, work["out"])


def check(run: Path) -> None:
    import morenas  # noqa: F401  it registers the adapter with PEFT
    from morenas.base.files import read_json

    config = read_json(run / ".hydra" / "run.json", "run")["config"]
    base = config["model"]["name_or_path"]
    prompts = first_prompts(config, base)
    model = PeftModel.from_pretrained(base_model(base), str(run / "adapter"))
    native, exact = logits(model, prompts), logits(model.double(), prompts)
    with tempfile.TemporaryDirectory() as folder:
        jobs, out = Path(folder) / "jobs.json", Path(folder) / "logits.pt"
        work = {form: str(run / "export" / form) for form in ("lora", "merged")}
        jobs.write_text(json.dumps({**work, "base": base, "prompts": prompts, "out": str(out)}))
        subprocess.run([sys.executable, __file__, "--plain", str(jobs)], check=True)
        exported = torch.load(out)
    largest = max(float(one.abs().max()) for one in native)
    print(f"{run.name}: logits up to {largest:.1f}, of which float32 rounds {worst(exact, native):.1e} away")
    for form, found in exported.items():
        print(f"{run.name}: {form}, loaded without morenas, differs by {worst(native, found):.1e} at most")


def worst(logits: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    return max(float((one - other).abs().max()) for one, other in zip(logits, others, strict=True))


def first_prompts(config: dict[str, Any], base: str) -> list[list[int]]:
    from transformers import AutoTokenizer

    from morenas.tasks.sources.tables import read_table

    task = config["task"]
    folder = Path(task["data_dir"]) / (task["folder"] or task["name"].rpartition("/")[2])
    rows = read_table(folder / task["test_files"]["test"]).rows[:RECORDS]
    tokenizer = AutoTokenizer.from_pretrained(base)
    return [tokenizer(row["instruction"] + "\n")["input_ids"][:TOKENS] for row in rows]


if __name__ == "__main__":
    plain(sys.argv[2]) if sys.argv[1] == "--plain" else check(Path(sys.argv[1]))
