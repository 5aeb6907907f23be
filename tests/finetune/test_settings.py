"""Settings decide steps exactly, and refuse what cannot be meant."""

from __future__ import annotations

import pytest

from morenas.base.errors import InputError
from morenas.finetune.settings import TrainingSettings


@pytest.mark.parametrize(
    ("epochs", "batch_size", "accumulation", "examples", "steps"),
    [
        (3, 16, 1, 32, 6),
        (3, 16, 1, 33, 9),
        (1, 16, 4, 33, 1),
        (0.5, 8, 1, 64, 4),
        (0.01, 8, 1, 8, 1),
        (2, 8, 2, 24, 3),
    ],
)
def test_epochs_become_steps(epochs: float, batch_size: int, accumulation: int, examples: int, steps: int) -> None:
    settings = TrainingSettings(epochs=epochs, batch_size=batch_size, gradient_accumulation=accumulation)
    assert settings.total_steps(examples) == steps


def test_max_steps_come_first() -> None:
    assert TrainingSettings(epochs=3, max_steps=7).total_steps(1000) == 7


@pytest.mark.parametrize("total", [1, 2, 3, 10, 101])
@pytest.mark.parametrize("evals", [1, 3, 8, 200])
def test_evaluations_are_spread_and_the_last_is_the_end(total: int, evals: int) -> None:
    steps = TrainingSettings(evals=evals).eval_steps(total)
    assert steps[-1] == total
    assert len(steps) <= min(total, evals)
    assert list(steps) == sorted(set(steps))
    gaps = [after - before for before, after in zip((0, *steps), steps, strict=False)]
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0.0},
        {"epochs": -1.0},
        {"batch_size": 0},
        {"evals": 0},
        {"warmup_ratio": 1.0},
        {"max_steps": 0},
        {"weight_decay": -0.1},
        {"gradient_accumulation": 0},
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"training.{next(iter(wrong))}="):
        TrainingSettings(**wrong)  # type: ignore[arg-type]


def test_an_unknown_scheduler_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'cosine'"):
        TrainingSettings(scheduler="cosin")
