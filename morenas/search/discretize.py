"""From a mixture to one architecture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from morenas.base.errors import RunError
from morenas.base.registry import registry
from morenas.base.seeds import derive
from morenas.bilevel import NonFiniteLoss
from morenas.search.alone import TrainedAlone
from morenas.search.measure import Measurement, usual_measurements
from morenas.search.mixture import Mixture
from morenas.search.settings import SearchSettings
from morenas.selection import Evidence, Picks, Selection


def discretize(
    mixture: Mixture,
    priors: Sequence[Tensor],
    vertices: Sequence[Picks],
    measurement: Measurement,
    alone: TrainedAlone,
    settings: SearchSettings,
) -> Sequence[int]:
    """Choose by the selection of the settings; the weights left behind are those that go with what it chose.

    Args:
        priors: Scores that the start has left, beside those of the logits.
        vertices: Whole architectures that the architecture steps led through, the last one last.
    Returns:
        One choice index per group, within the budget.
    Raises:
        InputError: If what it chose is not within the budget.
        RunError: If no logit moved, or a loss is not finite.
    """
    if not mixture.moved():
        raise RunError(
            "The search moved no architecture logit: it had too few steps (search.steps), or the loss does not depend "
            "on the searched modules."
        )
    selections, evidence = registry("selection"), _evidence(mixture, priors, vertices, measurement, alone, settings)
    select: Selection = selections.build(settings.selection)
    try:
        picks = select(evidence)
    except NonFiniteLoss as error:
        raise RunError(
            f"Play-off: the {error.level} loss is {error.value} at step {error.step} of an architecture that is "
            "trained alone. Lower search.learning_rate or training.learning_rate, or choose another selection."
        ) from error
    evidence.check(picks, selections.chosen_by(settings.selection))
    alone.leave(picks)
    return picks


def _evidence(
    mixture: Mixture,
    priors: Sequence[Tensor],
    vertices: Sequence[Picks],
    measurement: Measurement,
    alone: TrainedAlone,
    settings: SearchSettings,
) -> Evidence:
    return Evidence(
        priors=[mixture.scores(), *priors],
        vertices=vertices,
        costs=mixture.costs,
        allowed=~mixture.forbidden,
        budget=mixture.budget,
        generator=torch.Generator().manual_seed(derive(settings.seed, "selection")),
        measure=measurement,
        batch_losses=measurement.on_batches,
        train_and_measure=alone,
        measurements=settings.measurements,
        usual_measurements=usual_measurements(settings.steps),
        finalists=settings.playoff,
    )
