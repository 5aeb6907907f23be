"""One run by its cost: how many weight steps it has beside scores, architecture steps and selection.

Costs are in *passes*: forward and backward on the batches of a step is 1, forward alone ``FORWARD``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from morenas.base.registry import registry
from morenas.search.acting import UNMEASURED
from morenas.search.alone import usual_playoff_steps
from morenas.search.descent import arch_steps_alone
from morenas.search.loops import new_schedule
from morenas.search.measure import DECISIVE_BATCHES, MEASURED_BATCHES, usual_measurements
from morenas.search.objective import FORWARD
from morenas.search.settings import SearchSettings
from morenas.search.start import spectrum_batches
from morenas.search.worth import worth_batches
from morenas.selection.race import most_batches, usual_entrants

FEWEST_STEPS = 10  # weight steps of a search


@dataclass(frozen=True)
class RunLength:
    """A search and the training of what it finds, as one run of a given cost.

    Attributes:
        passes: Of the whole run.
        share: Share of its weight steps that is search.
    """

    passes: float
    share: float

    def search_steps(self, settings: Callable[[int], SearchSettings]) -> int:
        """Weight steps of the search: as many as leave what is found its share, whatever a selection measures.

        Args:
            settings: Those of a search of so many weight steps.
        """

        def too_many(steps: int) -> bool:
            return steps > self.share * (self.passes - passes_beside(settings(steps)))

        most = range(FEWEST_STEPS, max(FEWEST_STEPS, round(self.share * self.passes)) + 1)
        return max(FEWEST_STEPS, FEWEST_STEPS - 1 + bisect_left(most, True, key=too_many))

    def found_steps(self, searched: float) -> int:
        """Steps that what is found is trained for: all that the search has left.

        At least half of what it would have if weight steps alone cost anything: in a run too short for its search, it
        is the run that becomes longer.

        Args:
            searched: Passes that the search has taken.
        """
        least = (1 - self.share) * self.passes / 2
        return max(1, round(least), round(self.passes - searched))

    def excess(self, settings: SearchSettings) -> float:
        """Passes that such a search and the training of what it finds may take beyond the run's; 0 or more."""
        searched = settings.steps + passes_beside(settings)
        return max(0.0, searched + self.found_steps(searched) - max(1.0, self.passes))


def passes_beside(settings: SearchSettings) -> float:
    """Passes of a search beside its weight steps, at most, as they are known before it begins.

    A selection of one's own is taken for one that measures ``measurements`` architectures, a hypergradient without an
    attribute ``passes`` for one that takes 1, and guards for free.
    """
    opens = registry("start").get(settings.start).open_warmup
    batches = spectrum_batches(settings.steps) if opens else 0
    looked_at = batches / settings.gradient_accumulation
    return looked_at + _arch_passes(settings, opens) + _selection_passes(settings) + _worth_passes(settings)


def _arch_passes(settings: SearchSettings, opens: bool) -> float:
    estimate = registry("hypergradient").build(settings.hypergradient)
    steps = new_schedule(settings, opens).upper_steps()
    return arch_steps_alone(settings) if settings.stands else steps * getattr(estimate, "passes", 1)


def _selection_passes(settings: SearchSettings) -> float:
    name, usual = registry("selection").chosen_by(settings.selection), usual_measurements(settings.steps)
    if name in UNMEASURED:
        return 0.0
    if name == "race":
        batches = most_batches(settings.measurements or usual_entrants(usual))
    else:
        batches = MEASURED_BATCHES * (settings.measurements or usual)
    measured = FORWARD * batches / settings.gradient_accumulation
    return measured + _playoff_passes(settings) if name == "playoff" else measured


def _worth_passes(settings: SearchSettings) -> float:
    if registry("selection").chosen_by(settings.selection) == "playoff":
        return 0.0
    return 2 * FORWARD * worth_batches(settings.steps) / settings.gradient_accumulation


def _playoff_passes(settings: SearchSettings) -> float:
    judged = FORWARD * DECISIVE_BATCHES / settings.gradient_accumulation
    return settings.playoff * (usual_playoff_steps(settings) + judged)
