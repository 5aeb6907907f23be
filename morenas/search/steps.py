"""The steps of a search, and the parts that take them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from morenas.base import processes
from morenas.base.registry import registry
from morenas.base.tensors import digest
from morenas.bilevel import BilevelProblem, StepReport
from morenas.search.alone import train_alone
from morenas.search.data import SearchData
from morenas.search.descent import MixtureGradient, arch_steps, arch_steps_alone
from morenas.search.discretize import discretize
from morenas.search.learnt import Witness
from morenas.search.loops import new_guard, new_loop, new_schedule
from morenas.search.measure import Measurement
from morenas.search.mixture import Mixture
from morenas.search.objective import Loss, Objective
from morenas.search.outcome import Origin, SearchOutcome, margin
from morenas.search.progress import arch_step_metrics, explained, show, step_metrics
from morenas.search.settings import SearchSettings
from morenas.search.start import Start, WarmedUp
from morenas.search.state import State
from morenas.search.worth import Worth, worth
from morenas.selection import Picks
from morenas.space import Budget
from morenas.supernet import Supernet
from morenas.tracking.observer import Observer


class Search:
    """One search: its parts, and the steps that it takes.

    The steps are to be taken in the order of their methods. One that a resumed search has behind it does nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        supernet: Supernet,
        head: dict[str, nn.Parameter],
        data: SearchData,
        budget: Budget,
        settings: SearchSettings,
        loss: Loss,
        checkpoint: Path | None,
        observer: Observer,
    ) -> None:
        self.supernet, self.head, self.data = supernet, head, data
        self.budget, self.settings, self.observer = budget, settings, observer
        self.first_logits: Start = registry("start").build(settings.start)
        self.schedule = new_schedule(settings, self.first_logits.open_warmup)
        weights = [*supernet.weights().values(), *head.values()]
        self.mixture = Mixture(supernet.space, budget.limit, settings, self.schedule)
        self.objective = Objective(model, loss, data, self.schedule, settings, weights[0].device)
        self.measurement = Measurement(supernet, self.objective, data)
        lower, upper = self.objective.lower(), self.objective.upper()
        self.problem = BilevelProblem(lower, upper, weights, [self.mixture.logits], self.mixture.distribution)
        self.loop = new_loop(self.problem, self.schedule, settings, new_guard(settings))
        self.state = State(checkpoint, self.loop, self.objective, settings.steps)
        self.arch_steps = arch_steps_alone(settings)
        self.vertices: list[Picks] = []

    def resume(self) -> None:
        """Take up the checkpoint, if there is one, and tell the observer where the search stands."""
        self.state.load()
        self.observer.start("search", self.settings.steps + self.arch_steps, self.loop.step)

    def warm_up(self) -> None:
        """Train the weights alone: those of the open supernet, or of the mixture that the logits start with."""
        self.objective.enter((lambda *_: self.supernet.open()) if self.first_logits.open_warmup else self._mix)
        self._run(until=self.settings.warmup)

    def start(self) -> None:
        """Set the logits by what the warm-up has taught, once, when it has just ended."""
        if self.loop.step != self.settings.warmup:
            return
        witness = Witness(self.data.val, self.objective.evaluate, self.objective.by_labels)
        self.state.priors = self.first_logits(WarmedUp(self.supernet, self.mixture, witness, self.settings.steps))
        self.state.learnt = witness.said(self.settings.learning_rate)
        if "learnt_nothing" in self.state.learnt:
            self.observer.message(str(self.state.learnt["learnt_nothing"]))
        if self.first_logits.open_warmup:
            self.loop.optimizers["lower"].state.clear()  # its moments belong to factors that are no more
        probs = self.mixture.distribution(self.loop.step)
        show(self.observer, self.supernet.space, self.loop.step, probs)
        if self.settings.stands:
            self.state.trace.add(self.loop.step, probs, last=True)

    def descend(self) -> None:
        """Take architecture steps: on weights that stand still, or in turn with theirs until a guard says stop."""
        if self.settings.stands:
            self._descend_alone()
        else:
            self.objective.enter(self._mix)
            self._run(until=self.settings.steps)
        if self.stopped:
            taken = f"{self.loop.step} of {self.settings.steps} steps"
            self.observer.message(f"The search stopped after {taken}: {self.stopped}.")
        self.observer.finish("search")

    def discretize(self, origin: Origin) -> SearchOutcome:
        """Select one architecture; the weights left behind are those that go with it."""
        self.objective.enter(lambda step, generator: None)  # the supernet computes what was drawn last
        alone = train_alone(self.problem, self.objective, self.measurement, self.settings)
        picks = discretize(self.mixture, self.state.priors, self.vertices, self.measurement, alone, self.settings)
        # Architectures that were trained alone stand in weights of their own, where LoRA would be a stranger.
        expected = None if alone.first else worth(picks, self.supernet.space, self.measurement, self.settings.steps)
        if expected is not None:
            self.observer.message(str(expected))
        return self._outcome(picks, origin, expected)

    @property
    def stopped(self) -> str:
        """Why a guard stopped the search; empty while none did."""
        return self.loop.guard.reason if self.loop.stopped and self.loop.guard is not None else ""

    def _mix(self, step: int, generator: torch.Generator) -> None:
        self.supernet.mix(self.mixture.mixing_probs(step, generator))

    def _descend_alone(self) -> None:
        at = self.loop.step
        gradient = MixtureGradient(self.supernet, self.mixture, self.objective, self.problem, self.settings.seed, at)
        with explained(self.schedule, self.settings, self.state.checkpoint):
            for step in arch_steps(self.mixture, at, gradient, self.arch_steps):
                done = at + step.number + 1
                self.vertices.append(step.vertex)
                self.state.trace.add(done, step.probs, last=True)
                self.observer.step("search", done, arch_step_metrics(step, self.mixture))
                show(self.observer, self.supernet.space, done, step.probs)

    def _run(self, until: int) -> None:
        with explained(self.schedule, self.settings, self.state.checkpoint):
            self.loop.run(self._after_step, until)

    def _after_step(self, report: StepReport) -> None:
        done, probs = report.step + 1, self.mixture.distribution(report.step)
        stops = self.loop.stopped and done == self.loop.step
        ends = stops or done == self.settings.steps
        self.state.trace.add(report.step, probs, last=ends)
        self.observer.step("search", done, step_metrics(report, probs, self.mixture, stops))
        show(self.observer, self.supernet.space, done, probs)
        if done % self.settings.checkpoint_every == 0 or ends:
            self.state.save()

    def _outcome(self, picks: Sequence[int], origin: Origin, expected: Worth | None) -> SearchOutcome:
        steps = self.loop.step
        taken = {
            "steps_taken": steps,
            "stopped": self.stopped,
            "arch_steps_taken": len(self.vertices) or self.schedule.upper_number(steps),
            "passes": round(self.objective.passes, 2),
        }
        space, trace, candidates = self.supernet.space, self.state.trace, self.measurement.candidates(picks)
        shapes = space.shapes(picks)
        taken |= {**margin(candidates), **self.state.learnt}
        if expected is not None:
            taken["worth"] = expected.document()
        architecture = origin.architecture(shapes, space, self.budget, self.settings, taken)
        processes.check_same("architecture", lambda: str(sorted(shapes.items())))
        processes.check_same("state of the search", lambda: digest(self.loop.state_tensors()))
        return SearchOutcome(
            architecture=architecture,
            shapes=shapes,
            params=architecture.num_parameters(),
            factors={name: (a.cpu(), b.cpu()) for name, (a, b) in self.supernet.factors(shapes).items()},
            head={name: weight.detach().cpu().clone() for name, weight in self.head.items()},
            logits=self.mixture.logits.detach(),
            probs=self.mixture.distribution(steps if self.settings.stands else steps - 1),
            trajectory=torch.stack(trace.probs),
            trajectory_steps=trace.steps,
            candidates=candidates,
            worth=expected,
            steps=steps,
            stopped=self.stopped,
        )
