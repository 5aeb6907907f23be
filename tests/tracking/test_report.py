"""The closing table and the report say what was measured."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from morenas.tracking.report import write_report
from morenas.tracking.table import print_closing


def row(name: str, accuracy: float, **details: Any) -> dict[str, Any]:
    return {
        "name": name,
        "metrics": {"test": {"accuracy": accuracy}, "select": {"accuracy": 0.5}},
        "adapter_params": 12_345,
        "head_params": 10,
        "params_fraction": 0.0123,
        "learning_rate": 1e-3,
        "steps": 10,
        "seconds": 61.0,
        "details": details,
    }


@pytest.fixture
def results() -> dict[str, Any]:
    return {
        "kind": "search",
        "task": "a <b> task",
        "metric": "accuracy",
        "split": "test",
        "model": {"name": "tiny", "parameters": 10**6},
        "budget": {"params": 13_000, "request": {}},
        "methods": [row("more", 0.9123), row("lora", 0.8765, rank=2, equal_parameters=True)],
        "phases": [{"name": "search", "seconds": 42.0, "steps": 5, "peak_memory_bytes": 2**30}],
        "seed": 3,
        "data": {"source": "files"},
        "versions": {"torch": "2"},
        "git_commit": "abc123",
        "device": "cpu",
        "command": "python -m morenas.search +task=x",
    }


def test_the_table_says_metric_parameters_share_and_time(results: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    text = io.StringIO()
    print_closing(results, tmp_path, Console(file=text, width=160))
    for said in (
        "0.9123",
        "0.8765",
        "12,345",
        "1.230%",
        "61 s",
        "42 s",
        "MoRe, found",
        "LoRA, equal parameters",
        "seed 3",
    ):
        assert said in text.getvalue()
    assert str(tmp_path / "results.json") in text.getvalue()
    assert "architecture" not in text.getvalue()  # it is not there


def test_no_name_is_cut_on_a_narrow_terminal(results: dict[str, Any], tmp_path: Path) -> None:
    for row in results["methods"]:
        row["metrics"] = {f"test_{kind}": {"matthews_correlation": 0.5} for kind in ("matched", "mismatched")}
    text = io.StringIO()
    print_closing(results, tmp_path, Console(file=text, width=80))
    assert "…" not in text.getvalue()


def test_the_report_is_one_page_that_loads_nothing(results: dict[str, Any], tmp_path: Path) -> None:
    shape = {"nblocks": 4, "blk_r": 2, "in_features": 8, "out_features": 8}
    (tmp_path / "architecture.json").write_text(json.dumps({"modules": {"layer.0.query": shape}}))
    (tmp_path / "search").mkdir()
    lines = [{"step": step, "search/lower_loss": 1 / step, "search/expected_params": 10.0} for step in (1, 2, 3)]
    (tmp_path / "search" / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    np.savez(
        tmp_path / "search" / "trajectory.npz",
        probs=np.full((2, 1, 2), 0.5),
        groups=np.array(["layer.0.query"]),
        choices=np.array(["none", "(4, 2)"]),
    )
    write_report(tmp_path, results)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 3  # architecture, curves, probabilities
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", page)
    assert "<b>" not in page and page.count("a &lt;b&gt; task") == 2  # title and heading
    for said in ("0.9123", "MoRe, found", "abc123", "morenas.search +task=x", "1,024"):
        assert said in page


def test_a_finetune_without_search_has_a_report_too(results: dict[str, Any], tmp_path: Path) -> None:
    results |= {"kind": "finetune", "budget": None, "methods": [row("lora", 0.8, rank=32)], "phases": []}
    write_report(tmp_path, results)
    assert "LoRA r=32" in (tmp_path / "report.html").read_text()
