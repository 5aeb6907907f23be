"""The search as one call, for anybody's model and batches: no Hydra, no files but an optional checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from morenas.base.errors import InputError, RunError
from morenas.base.registry import registry
from morenas.base.seeds import derive
from morenas.bilevel import BilevelProblem, NonFiniteLoss, Schedule, StepReport
from morenas.search.alone import train_alone
from morenas.search.data import SearchData
from morenas.search.discretize import discretize
from morenas.search.loops import new_guard, new_loop
from morenas.search.measure import Measurement
from morenas.search.mixture import Mixture
from morenas.search.objective import Loss, Objective
from morenas.search.outcome import Origin, SearchOutcome
from morenas.search.progress import by_name, not_finite, step_metrics
from morenas.search.settings import SearchSettings
from morenas.search.start import Start, WarmedUp
from morenas.search.state import State
from morenas.space import Budget, SearchSpace
from morenas.supernet import Supernet
from morenas.supernet.prepare import prepared
from morenas.tasks.batches import Batch, Batches
from morenas.tracking.observer import MixtureObserver, NullObserver, Observer

Inspect = Callable[[Supernet, SearchOutcome, Callable[[Sequence[int]], float]], None]
__all__ = ["Batch", "Batches", "SearchData", "SearchOutcome", "SearchSettings", "search_architecture"]


def model_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The loss that a model of transformers returns for a batch with labels."""
    loss: Tensor = model(**batch).loss
    return loss


@overload
def search_architecture(
    model: nn.Module,
    data: SearchData,
    space: SearchSpace,
    budget: int | Budget,
    settings: SearchSettings,
    head: Sequence[str] = (),
    loss: Loss = model_loss,
    checkpoint: Path | None = None,
    observer: Observer = ...,
    inspect: Inspect | None = None,
) -> SearchOutcome: ...


@overload
def search_architecture(
    model: nn.Module,
    train_batches: Batches,
    val_batches: Batches,
    space: SearchSpace,
    budget: int | Budget,
    settings: SearchSettings,
    head: Sequence[str] = (),
    loss: Loss = model_loss,
    checkpoint: Path | None = None,
    observer: Observer = ...,
    inspect: Inspect | None = None,
    select_batches: Batches | None = None,
) -> SearchOutcome: ...


def search_architecture(model: nn.Module, *given: Any, **named: Any) -> SearchOutcome:
    """Search the adapter architecture of ``model`` under a budget by bilevel optimization.

    Weights (adapters of the supernet, and the head) descend the loss on ``data.train``; architecture logits descend it
    on ``data.val``. The model is given back as it came: same modules, same parameters. In the place of ``data`` stand
    ``train_batches`` and ``val_batches`` too, and ``select_batches`` at the end.

    Args:
        model: Pretrained model on its device; it stays frozen but for the head.
        data: Batches by micro-batch number, from ``morenas.numbered_batches`` say.
        space: From ``morenas.space.build_space``.
        budget: From ``Budget.resolve``, which checks that the space can meet it; or a number in the unit of the space's
            cost, which is adapter parameters, head not counted, where nothing else was said.
        settings: See ``SearchSettings``.
        head: Names of modules trained beside the adapters.
        loss: Scalar loss of the model on a batch.
        checkpoint: File to keep the state in; if it is there, the search goes on from it, bit for bit on a CPU.
        observer: Called at every weight step, with metrics of the ``search/`` family; with the probabilities too if it
            has the method of ``MixtureObserver``.
        inspect: Called once at the end, while the supernet still holds its weights, with the supernet, the outcome
            and the function that measures an architecture in them.
    Raises:
        InputError: If a loss is not finite, batches have no numbers or an end, or the checkpoint is not whole or of
            another search.
        RunError: If no logit moved: the search did nothing.
    """
    if "data" in named or (given and isinstance(given[0], SearchData)):
        return _search(model, *given, **named)
    return _search_batches(model, *given, **named)


def _search_batches(
    model: nn.Module,
    train_batches: Batches,
    val_batches: Batches,
    space: SearchSpace,
    budget: int | Budget,
    settings: SearchSettings,
    head: Sequence[str] = (),
    loss: Loss = model_loss,
    checkpoint: Path | None = None,
    observer: Observer | None = None,
    inspect: Inspect | None = None,
    select_batches: Batches | None = None,
) -> SearchOutcome:
    data = SearchData(train_batches, val_batches, select_batches)
    return _search(model, data, space, budget, settings, head, loss, checkpoint, observer, inspect)


def _search(
    model: nn.Module,
    data: SearchData,
    space: SearchSpace,
    budget: int | Budget,
    settings: SearchSettings,
    head: Sequence[str] = (),
    loss: Loss = model_loss,
    checkpoint: Path | None = None,
    observer: Observer | None = None,
    inspect: Inspect | None = None,
) -> SearchOutcome:
    allowed = budget if isinstance(budget, Budget) else Budget.of(space, budget)
    allowed.check(space)
    observer, origin = observer or NullObserver(), Origin.of(model, head)
    with prepared(model, space, settings.sharing, derive(settings.seed, "supernet"), head) as (supernet, head_weights):
        search = Search(model, supernet, head_weights, data, allowed, settings, loss, checkpoint, observer)
        search.resume()
        search.warm_up()
        search.start()
        search.descend()
        outcome = search.discretize(origin)
        if inspect is not None:
            inspect(supernet, outcome, search.measurement)
        return outcome


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
        # An open warm-up is a training of its own: the learning rate runs through ramp and cosine in it, and once more.
        self.schedule = Schedule(
            settings.steps,
            settings.warmup,
            settings.every,
            settings.ramp,
            settings.max_grad_norm,
            restart=self.first_logits.open_warmup,
        )
        weights = [*supernet.weights().values(), *head.values()]
        self.mixture = Mixture(supernet.space, budget.limit, settings, self.schedule)
        self.objective = Objective(model, loss, data, self.schedule, settings, weights[0].device)
        self.measurement = Measurement(supernet, self.objective, data)
        lower, upper = self.objective.lower(), self.objective.upper()
        self.problem = BilevelProblem(lower, upper, weights, [self.mixture.logits], self.mixture.distribution)
        self.loop = new_loop(self.problem, self.schedule, settings, new_guard(settings))
        self.state = State(checkpoint, self.loop, settings.steps)

    def resume(self) -> None:
        """Take up the checkpoint, if there is one, and tell the observer where the search stands."""
        self.state.load()
        self.observer.start("search", self.settings.steps, self.loop.step)

    def warm_up(self) -> None:
        """Train the weights alone: those of the open supernet, or of the mixture that the logits start with."""
        self.objective.enter(self._open if self.first_logits.open_warmup else self._mix)
        self._run(until=self.settings.warmup)

    def start(self) -> None:
        """Set the logits by what the warm-up has taught, once, when it has just ended."""
        if self.loop.step != self.settings.warmup:
            return
        warm = WarmedUp(self.supernet, self.mixture, self._val_loss, self.settings.steps)
        self.state.priors = self.first_logits(warm)
        if self.first_logits.open_warmup:
            self.loop.optimizers["lower"].state.clear()  # its moments belong to factors that are no more
        probs = self.mixture.distribution(self.loop.step)
        self._show(self.loop.step, probs)
        if self.schedule.upper_steps() == 0:
            self.state.trace.add(self.loop.step, probs, last=True)

    def descend(self) -> None:
        """Take architecture and weight steps in turn, until the schedule ends or a guard says stop."""
        self.objective.enter(self._mix)
        self._run(until=self.settings.steps)
        if self.stopped:
            taken = f"{self.loop.step} of {self.settings.steps} steps"
            self.observer.message(f"The search stopped after {taken}: {self.stopped}.")
        self.observer.finish("search")

    def discretize(self, origin: Origin) -> SearchOutcome:
        """Select one architecture; the weights left behind are those that go with it.

        Raises:
            RunError: If no logit moved.
        """
        if not self.mixture.moved():
            raise RunError(
                "The search moved no architecture logit: it had too few steps (search.steps), or the loss does not "
                "depend on the searched modules."
            )
        self.objective.enter(lambda step, generator: None)  # the supernet computes what was drawn last
        alone = train_alone(self.problem, self.objective, self.measurement, self.settings)
        picks = discretize(self.mixture, self.state.priors, self.measurement, alone, self.settings)
        return self._outcome(picks, origin)

    @property
    def stopped(self) -> str:
        """Why a guard stopped the search; empty while none did."""
        return self.loop.guard.reason if self.loop.stopped and self.loop.guard is not None else ""

    def _open(self, step: int, generator: torch.Generator) -> None:
        self.supernet.open()

    def _mix(self, step: int, generator: torch.Generator) -> None:
        self.supernet.mix(self.mixture.mixing_probs(step, generator))

    def _val_loss(self, number: int) -> Tensor:
        return self.objective.evaluate(self.data.val[number])

    def _run(self, until: int) -> None:
        try:
            self.loop.run(self._after_step, until)
        except NonFiniteLoss as error:
            raise InputError(not_finite(error, self.schedule, self.settings, self.state.checkpoint)) from error

    def _after_step(self, report: StepReport) -> None:
        done, probs = report.step + 1, self.mixture.distribution(report.step)
        stops = self.loop.stopped and done == self.loop.step
        ends = stops or done == self.settings.steps
        self.state.trace.add(report.step, probs, last=ends)
        self.observer.step("search", done, step_metrics(report, probs, self.mixture, stops))
        self._show(done, probs)
        if done % self.settings.checkpoint_every == 0 or ends:
            self.state.save()

    def _show(self, step: int, probs: Tensor) -> None:
        """Hand the probabilities to an observer that asks for them."""
        if isinstance(self.observer, MixtureObserver):
            self.observer.mixture(step, by_name(self.supernet.space, probs))

    def _outcome(self, picks: Sequence[int], origin: Origin) -> SearchOutcome:
        space, trace, steps = self.supernet.space, self.state.trace, self.loop.step
        shapes = space.shapes(picks)
        architecture = origin.architecture(shapes, space, self.budget, self.settings, steps, self.stopped)
        return SearchOutcome(
            architecture=architecture,
            shapes=shapes,
            params=architecture.num_parameters(),
            factors={name: (a.cpu(), b.cpu()) for name, (a, b) in self.supernet.factors(shapes).items()},
            head={name: weight.detach().cpu().clone() for name, weight in self.head.items()},
            logits=self.mixture.logits.detach(),
            probs=self.mixture.distribution(steps - 1),
            trajectory=torch.stack(trace.probs),
            trajectory_steps=trace.steps,
            steps=steps,
            stopped=self.stopped,
        )
