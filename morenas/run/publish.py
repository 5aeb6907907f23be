"""What a finished run publishes: results.json, the report, the closing table, figures for dashboards."""

from __future__ import annotations

import shlex
from typing import Any

import torch

from morenas.base.errors import WriteError
from morenas.run.base_model import frozen_weights
from morenas.run.devices import describe_device
from morenas.run.results import git_commit, versions, write_results
from morenas.run.session import Session
from morenas.tracking.report import write_report
from morenas.tracking.table import print_closing


def publish(run: Session, kind: str, rows: list[dict[str, Any]], budget: dict[str, Any] | None = None) -> float:
    """Write results and report, print the closing table.

    Args:
        kind: The command: "search" or "finetune".
        rows: The methods that were measured, the run's own first; see ``methods`` in the schema of results.json.
        budget: What the adapters were allowed.
    Returns:
        The main metric on the select split.
    """
    results = document(run, kind, rows, budget)
    run.trackers.summary(summary(results))
    run.trackers.artifact(run.directory.adapter, "adapter")
    write_report(run.directory.path, results)
    # Last: a run that has its results is complete, and is not gone on with.
    write_results(run.directory.results, results)
    try:
        run.directory.drop_checkpoints()
    except WriteError as error:
        run.observer.message(f"{error}; the run is complete without it, remove it.")
    print_closing(results, run.directory.path)
    return float(results["value"])


def document(
    run: Session, kind: str, rows: list[dict[str, Any]], budget: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The document of results.json."""
    task, model, weights = run.task, run.config.model, frozen_weights(run.config, run.device)
    return {
        "status": "complete",
        "kind": kind,
        "task": task.spec.name,
        "task_kind": task.spec.kind,
        "metric": task.metric,
        "split": next(iter(rows[0]["metrics"])),
        "model": {
            "name": model.name_or_path,
            "parameters": run.model_parameters,
            "fingerprint": run.fingerprint,
            "dtype": weights.dtype,
            "quantization": weights.quantization,
            "pooling": model.pooling,
        },
        "budget": budget,
        "methods": rows,
        "value": rows[0]["metrics"]["select"][task.select_metric],
        "phases": run.meter.rows(),
        "seed": run.config.seed,
        "data": task.provenance,
        "versions": versions(),
        "git_commit": git_commit(),
        "device": describe_device(run.device),
        "threads": torch.get_num_threads(),
        "command": shlex.join(["python", "-m", f"morenas.{kind}", *run.directory.saved_overrides()]),
    }


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """What a dashboard sorts runs by: our method's figures, and those of what it is compared with under its name."""
    ours, *compared = results["methods"]
    seconds = {f"seconds/{phase['name']}": phase["seconds"] for phase in results["phases"]}
    metrics = {f"{split}/{name}": value for split, values in ours["metrics"].items() for name, value in values.items()}
    return {
        **metrics,
        **{
            f"{row['name']}/{split}/{name}": value
            for row in compared
            for split, values in row["metrics"].items()
            for name, value in values.items()
        },
        "metric": ours["metrics"][results["split"]][results["metric"]],
        "adapter_params": ours["adapter_params"],
        "params_fraction": ours["params_fraction"],
        "seconds": sum(seconds.values()),
        **seconds,
    }
