"""Runs that the tests of exports share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_exports import baseline, train
from tiny_runs import SEARCH_WORDS, task_words


@pytest.fixture(scope="session")
def found(tiny_task: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search."""
    words = [*task_words(tiny_task, tiny_model), *SEARCH_WORDS, "budget.fraction=0.6"]
    short = ("training.max_steps", "training.learning_rate")
    kept = [word for word in words if not word.startswith(short)]
    words = [*kept, "training.max_steps=160", "training.learning_rate=1e-2", "search.runs=2"]  # until it has learned
    return train(tmp_path_factory.mktemp("found") / "run", "search", *words)


@pytest.fixture(scope="session")
def lora_run(tiny_task: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished fine-tune by method=lora."""
    return baseline("lora", tiny_task, tiny_model, tmp_path_factory.mktemp("lora") / "run")
