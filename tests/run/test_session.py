"""What a dashboard is told of a run: its name, what runs are sorted by, and everything a run leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import wandb
from tiny_runs import SEARCH_WORDS, CommandLine, read, task_words

from morenas.run.config import Model, Task
from morenas.run.publish import summary
from morenas.run.session import run_name
from morenas.search.config import SearchRunConfig
from morenas.search.phase import budget_words
from morenas.search.requests import BudgetSettings


@pytest.mark.parametrize(
    ("budget", "name"),
    [
        (BudgetSettings(lora_rank=32, fraction=0.05), "glue-rte-roberta-base-lora32-x0.05-seed3"),
        (BudgetSettings(params=5000), "glue-rte-roberta-base-params5000-seed3"),
        (BudgetSettings(fraction=0.01), "glue-rte-roberta-base-x0.01-seed3"),
    ],
)
def test_a_runs_name_says_task_model_budget_and_seed(budget: BudgetSettings, name: str) -> None:
    task, model = Task(name="glue/rte"), Model(name_or_path="FacebookAI/roberta-base")
    config = SearchRunConfig(seed=3, task=task, model=model, budget=budget)
    assert run_name(config, budget_words(config)) == name


def test_runs_are_sorted_by_metric_parameters_share_and_seconds() -> None:
    row = {"metrics": {"test": {"f1": 0.5}, "select": {"f1": 0.7}}, "adapter_params": 10, "params_fraction": 0.1}
    phases = [{"name": "search", "seconds": 2.0}, {"name": "finetune", "seconds": 3.0}]
    lora = {"name": "lora", "metrics": {"test": {"f1": 0.4}}}
    found = summary({"methods": [row, lora], "split": "test", "metric": "f1", "phases": phases})
    assert (found["metric"], found["adapter_params"], found["params_fraction"], found["seconds"]) == (0.5, 10, 0.1, 5.0)
    assert (found["test/f1"], found["select/f1"], found["seconds/search"]) == (0.5, 0.7, 2.0)
    assert found["lora/test/f1"] == 0.4


def test_a_whole_run_reaches_wandb(
    command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, Any]] = []
    init = wandb.init

    def told(**given: Any) -> Any:
        begun.append(given)
        return init(**given)

    monkeypatch.setattr(wandb, "init", told)
    words = [word for word in task_words(tiny_task, tiny_model, tmp_path / "run") if word != "tracking=local"]
    done = command("search", *words, *SEARCH_WORDS, "tracking.wandb.mode=offline", "tracking.wandb.group=together")
    assert done.status == 0, done.err
    (given,) = begun
    assert (given["name"], given["group"]) == (f"files-{tiny_model.name}-lora4-x0.3-seed0", "together")
    assert given["job_type"] == "search" and given["config"]["search"]["arch_learning_rate"] == 0.1
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert f"wandb sync {folder}" in done.out
    wandb.teardown()  # its service process may write on after ``finish``
    record = next(folder.glob("*.wandb")).read_bytes()
    results = read(tmp_path / "run" / "results.json")
    metrics = ("search/lower_loss", "search/expected_params", "finetune/loss", "finetune/select_accuracy")
    kept = ("architecture/table", "architecture/heatmap", "architecture.json", "adapter_model.safetensors")
    summed = ("params_fraction", "seconds/search", str(results["methods"][0]["params_fraction"]))
    for said in (*metrics, *kept, *summed):
        assert said.encode() in record, said
    (table,) = (folder / "files" / "media").rglob("*.table.json")
    modules: dict[str, Any] = read(tmp_path / "run" / "architecture.json")["modules"]
    assert {row[0] for row in json.loads(table.read_text())["data"]} == set(modules)
