"""What the documentation shows runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import save_tiny_causal

import morenas
from morenas.adapters.published import to_published
from morenas.base.files import read_json
from morenas.monarch import num_parameters

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

WRITTEN = {"adapter": "MORENAS", "lora": "LORA", "from-lora": "MORENAS", "from-published": "MORENAS"}
"""Adapter folders that the page leaves, with their types."""


def run_blocks(page: Path) -> dict[str, Any]:
    """Run the python blocks of a page, one after the other, in one namespace; tracebacks name the page's own lines."""
    text, names = page.read_text(encoding="utf-8"), {"__name__": page.stem}
    blocks = list(BLOCK.finditer(text))
    assert blocks, f"{page} shows no python"
    for block in blocks:
        above = text[: block.start(1)].count("\n")
        exec(compile("\n" * above + block[1], str(page), "exec"), names)
    return names


def published_checkpoint(file: Path) -> None:
    """Every linear layer of the demo's model adapted, and its head, as the paper's code saves them."""
    base = morenas.load_pretrained("demo", num_labels=2)
    linears = morenas.target_linears(base.model, exclude=base.head)
    factors = {name: (torch.ones(4, 2, n // 4), torch.ones(4, m // 4, 2)) for name, (n, m) in linears.items()}
    head = {name: tensor for name, tensor in base.model.state_dict().items() if name.startswith(base.head)}
    torch.save({**to_published(factors, linears), **head}, file)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the files of a user's own that the page speaks of."""
    save_tiny_causal(tmp_path / "my-model", "llama")
    published_checkpoint(tmp_path / "published.bin")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_page_runs_from_top_to_bottom(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run_blocks(PAGE)
    outcome = names["outcome"]
    assert outcome.params == sum(num_parameters(*names["linears"][m], *c) for m, c in outcome.shapes.items()) > 0
    assert morenas.Architecture.from_json("architecture.json") == outcome.architecture
    kinds = {name: read_json(folder / name / "adapter_config.json", "adapter")["peft_type"] for name in WRITTEN}
    assert kinds == WRITTEN
    assert "{'accuracy': " in capsys.readouterr().out
