"""The model card says what an export is, where it is from, and how it was measured."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from run_documents import RESULTS, ROW
from tiny_exports import export, refused
from tiny_runs import read

from morenas.export.card import write_card
from morenas.export.forms import Exported
from morenas.run.reading import FinishedRun
from morenas.space import Architecture


@pytest.mark.parametrize("form", ["lora", "more", "merged"])
def test_the_card_tells_what_it_is_and_where_it_is_from(
    found: Path, tiny_model: Path, tmp_path: Path, form: str
) -> None:
    export(f"run={found}", f"to={form}", f"out={tmp_path / 'out'}")
    text, results = (tmp_path / "out" / "README.md").read_text(), read(found / "results.json")
    data: Any = ModelCard(text).data
    row = results["methods"][0]
    assert data.base_model == tiny_model.name and data.to_dict()["library_name"] in ("peft", "transformers")
    assert results["command"] in text and f"{row['adapter_params']:,} adapter parameters" in text
    assert f"| test | accuracy | {row['metrics']['test']['accuracy']:.4f} |" in text
    assert "Licence of the base model: not stated in its files" in text
    for name, shape in Architecture.from_json(found / "architecture.json").modules.items():
        line = f"| `{name}` | {shape.in_features} | {shape.out_features} | {shape.nblocks} | {shape.blk_r} | "
        assert line in text
    assert "model-index" in text
    outside = text.replace(results["command"], "")
    assert str(tiny_model) not in outside


def test_the_card_tells_the_licence_that_the_base_s_card_names(found: Path, tiny_model: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_model, tmp_path / tiny_model.name)
    (base / "README.md").write_text("---\nlicense: mit\n---\n# tiny\n")
    export(f"run={found}", "to=lora", f"out={tmp_path / 'out'}", f"base={base}")
    card: Any = ModelCard((tmp_path / "out" / "README.md").read_text())
    assert card.data.license == "mit" and "Licence of the base model: mit" in card.text


def test_a_truncated_export_tells_its_error(found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"run={found}", "to=lora", f"out={tmp_path / 'out'}", "max_rank=1"]
    assert "above max_rank=1" in refused(capsys, *words) and not (tmp_path / "out").exists()
    export(*words, "truncate=true")
    assert "modules truncated, at most" in capsys.readouterr().out
    assert {read(tmp_path / "out" / "adapter_config.json")["r"]} == {1}
    text = (tmp_path / "out" / "README.md").read_text()
    assert "best approximation" in text and "before it was truncated" in text and "model-index" not in text


@pytest.mark.parametrize("name", ["a\n# b", "a | b", "`b", "```\n# b", "<script>", "{{ 1 + 1 }}", "---\n# b", "a: b"])
def test_no_name_of_a_run_breaks_the_card(name: str, tmp_path: Path) -> None:
    row = {**ROW, "metrics": {name: {name: 0.5}}}
    results = {**RESULTS, "task": name, "metric": name, "command": name, "methods": [row]}
    write_card(tmp_path, Exported("lora", False), "base", FinishedRun(tmp_path, results, {"task": {"kind": name}}))
    card: Any = ModelCard((tmp_path / "README.md").read_text())
    body = card.text.split("# A LoRA", 1)[1]
    assert "# b" not in body.splitlines() and "<script" not in body and body.count("```") % 2 == 0
    (line,) = [line for line in body.splitlines() if "0.5000" in line]
    assert line.count("|") == 4
    assert card.data.eval_results[0].dataset_type == name
