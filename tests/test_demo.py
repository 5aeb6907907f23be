"""What the demo is there to show: adapters do what the head alone cannot, ours as well as LoRA of equal size."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import CommandLine, read


@pytest.mark.slow
def test_adapters_clear_the_head_and_keep_the_budget(command: CommandLine, tmp_path: Path) -> None:
    assert (
        command("finetune", "+task=demo", "method=head", "tracking=local", f"hydra.run.dir={tmp_path / 'head'}").status
        == 0
    )
    assert command("search", "+task=demo", "tracking=local", f"hydra.run.dir={tmp_path / 'found'}").status == 0
    head = read(tmp_path / "head" / "results.json")["methods"][0]["metrics"]["test"]["accuracy"]
    results = read(tmp_path / "found" / "results.json")
    found, lora = (row["metrics"]["test"]["accuracy"] for row in results["methods"])
    assert 0.45 <= head <= 0.65
    assert found >= 0.85 and lora >= 0.80
    assert results["methods"][0]["adapter_params"] <= results["budget"]["params"]
