"""The documents of a tiny run."""

from __future__ import annotations

from typing import Any

ROW = {
    "name": "head",
    "metrics": {"test": {"accuracy": 0.5}},
    "adapter_params": 0,
    "head_params": 10,
    "params_fraction": 0.0,
    "learning_rate": 0.1,
    "steps": 1,
    "seconds": 1.0,
    "details": {},
}
RESULTS: dict[str, Any] = {
    "status": "complete",
    "kind": "finetune",
    "task": "t",
    "metric": "accuracy",
    "split": "test",
    "model": {"name": "m", "parameters": 1, "fingerprint": "f"},
    "methods": [ROW],
    "value": 0.5,
    "phases": [],
    "seed": 0,
    "data": {},
    "versions": {},
    "git_commit": None,
    "device": "cpu",
    "threads": 1,
    "command": "c",
}
