"""What a search says of itself: the metrics of a step, and what went wrong in one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from morenas.base.errors import RunError
from morenas.bilevel import NonFiniteLoss, Schedule, StepReport, expected_cost
from morenas.search.descent import ArchStep
from morenas.search.mixture import Mixture, mean_entropy
from morenas.search.settings import SearchSettings
from morenas.space import SearchSpace
from morenas.tracking.observer import MixtureObserver, Observer


def arch_step_metrics(step: ArchStep, mixture: Mixture) -> dict[str, float]:
    """Metrics of an architecture step on weights that stand still."""
    return {"search/upper_loss": step.loss, **_mixture_metrics(step.probs, mixture)}


def step_metrics(report: StepReport, probs: Tensor, mixture: Mixture, stops: bool) -> dict[str, float]:
    """Metrics of a step of the search.

    Args:
        probs: The distribution at that step, ``(groups, choices)``.
        stops: Whether a guard has ended the search with it.
    """
    metrics = {
        "search/lower_loss": report.lower_loss,
        "search/lower_lr": report.lower_lr,
        "search/temperature": mixture.temperature(report.step),
        **_mixture_metrics(probs, mixture),
    }
    if report.upper_loss is not None:
        metrics["search/upper_loss"] = report.upper_loss
    if stops:
        metrics["search/stopped"] = 1.0
    return metrics


def _mixture_metrics(probs: Tensor, mixture: Mixture) -> dict[str, float]:
    metrics = {
        "search/expected_params": float(expected_cost(probs, mixture.params)),
        "search/entropy": mean_entropy(probs),
    }
    if mixture.counts_another_cost:
        metrics["search/expected_cost"] = float(expected_cost(probs, mixture.costs))
    return metrics


def by_name(space: SearchSpace, probs: Tensor) -> dict[str, dict[str, float]]:
    """Probabilities ``(groups, choices)`` by the names of group and choice."""
    choices = [str(choice) for choice in space.choices]
    return {name: dict(zip(choices, row, strict=True)) for name, row in zip(space.groups, probs.tolist(), strict=True)}


def show(observer: Observer, space: SearchSpace, step: int, probs: Tensor) -> None:
    """Hand probabilities ``(groups, choices)`` to an observer that asks for them."""
    if isinstance(observer, MixtureObserver):
        observer.mixture(step, by_name(space, probs))


@contextmanager
def explained(schedule: Schedule, settings: SearchSettings, checkpoint: Path | None) -> Iterator[None]:
    """Say of a loss that is not finite where it came from, and what to do.

    Raises:
        RunError: In the place of ``NonFiniteLoss``.
    """
    try:
        yield
    except NonFiniteLoss as error:
        raise RunError(not_finite(error, schedule, settings, checkpoint)) from error


def not_finite(error: NonFiniteLoss, schedule: Schedule, settings: SearchSettings, checkpoint: Path | None) -> str:
    """The message for a loss that is not finite."""
    step = error.step if error.level == "lower" else min(schedule.upper_at(error.step), settings.steps)
    rate = settings.learning_rate * schedule.lower_factor(step)
    batch = (error.step * settings.micro_batches + error.micro_batch) // settings.shares
    kept = (
        f"The last good checkpoint is kept: {checkpoint}."
        if checkpoint is not None and checkpoint.exists()
        else "No checkpoint had been written."
    )
    return (
        f"Search: the {error.level} loss is {error.value} at weight step {step} (learning rate {rate:.3g}, "
        f"{error.level} batch {batch}). {kept} Lower search.learning_rate or training.learning_rate, or look at that "
        "batch."
    )
