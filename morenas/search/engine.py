"""The search as one call, for anybody's model and batches: no Hydra, no files but an optional checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from morenas.base.errors import InputError, RunError
from morenas.base.registry import registry
from morenas.base.seeds import derive, seed_pass
from morenas.base.tensors import load_tensors, save_tensors
from morenas.bilevel import (
    BilevelLoop,
    BilevelProblem,
    Guard,
    Level,
    NonFiniteLoss,
    Schedule,
    StepReport,
    expected_cost,
    hold_budget,
    sharpened,
)
from morenas.search.outcome import Origin, SearchOutcome
from morenas.search.playoff import PlayOff
from morenas.search.settings import SearchSettings
from morenas.selection import Evidence
from morenas.space import Budget, SearchSpace
from morenas.supernet import Relaxation, Supernet
from morenas.supernet.prepare import evaluation_mode, prepared
from morenas.supernet.spectrum import sample_layers, spectrum
from morenas.tasks.batches import Batch, Batches
from morenas.tracking.observer import NullObserver, Observer

SNAPSHOTS = 200  # mixing probabilities kept of a search, evenly spread
READ_EVERY = 10  # weight steps between readings of the weights' losses from an accelerator, at most

SPECTRUM_BATCHES = 8  # batches of the architecture's data that a spectral start looks at, or one for 8 weight steps
MEASURED_BATCHES = 4  # of the same, that an architecture's loss is measured on
PLAYOFF_BATCHES = 8  # batches that the architectures of a play-off are compared on
MEASUREMENTS = 0.15  # architectures measured, as a share of the weight steps
FEWEST_MEASUREMENTS = 12  # or one for 5 weight steps, where that is less
PLAYOFF_STEPS = 0.05  # weight steps of each architecture of a play-off, as a share of the search's
START_ENTROPY = 0.5  # nats a group: how sure of its scores a spectral start is

__all__ = ["Batch", "Batches", "SearchOutcome", "SearchSettings", "search_architecture"]


@dataclass
class _Trace:
    """Snapshots of the mixing probabilities, thinned to at most ``SNAPSHOTS``."""

    total: int
    steps: list[int] = field(default_factory=list)
    probs: list[Tensor] = field(default_factory=list)

    def add(self, step: int, probs: Tensor, last: bool = False) -> None:
        if last or step % max(1, self.total // SNAPSHOTS) == 0:
            self.steps.append(step)
            self.probs.append(probs.detach().float().cpu())


Inspect = Callable[[Supernet, SearchOutcome, Callable[[Sequence[int]], float]], None]


def search_architecture(
    model: nn.Module,
    train_batches: Batches,
    val_batches: Batches,
    space: SearchSpace,
    budget: int | Budget,
    settings: SearchSettings,
    head: Sequence[str] = (),
    loss: Callable[[nn.Module, Batch], Tensor] = lambda model, batch: model(**batch).loss,
    checkpoint: Path | None = None,
    observer: Observer = NullObserver(),  # noqa: B008  it has no state
    inspect: Inspect | None = None,
    select_batches: Batches | None = None,
) -> SearchOutcome:
    """Search the adapter architecture of ``model`` under a budget by bilevel optimization.

    Weights (adapters of the supernet, and the head) descend the loss on ``train_batches``; architecture logits
    descend it on ``val_batches``. The model is given back as it came: same modules, same parameters.

    Args:
        model: Pretrained model on its device; it stays frozen but for the head.
        train_batches: Weight batches by micro-batch number, from ``morenas.numbered_batches`` say.
        val_batches: Architecture batches by micro-batch number.
        space: From ``morenas.space.build_space``.
        budget: From ``Budget.resolve``, which checks that the space can meet it; or adapter parameters, head not
            counted.
        settings: See ``SearchSettings``.
        head: Names of modules trained beside the adapters.
        loss: Scalar loss of the model on a batch.
        checkpoint: File to keep the state in; if it is there, the search goes on from it, bit for bit on a CPU.
        observer: Told of every weight step, with metrics of the ``search/`` family.
        inspect: Called once at the end, while the supernet still holds its weights, with the supernet, the outcome
            and the function that measures an architecture in them.
        select_batches: Batches that a play-off is decided on, by number; None for ``val_batches``.
    Raises:
        InputError: If a loss is not finite, batches have no numbers or an end, or the checkpoint is not whole or of
            another search.
        RunError: If no logit moved: the search did nothing.
    """
    _check_batches(train_batches=train_batches, val_batches=val_batches, select_batches=select_batches)
    allowed = budget if isinstance(budget, Budget) else Budget(budget, {"params": budget})
    origin = Origin.of(model, head)
    seed = derive(settings.seed, "supernet")
    with prepared(model, space, settings.sharing, seed, head) as (supernet, head_weights):
        search = _Search(model, supernet, head_weights, train_batches, val_batches, space, allowed, settings, loss)
        search.select_batches = val_batches if select_batches is None else select_batches
        if checkpoint is not None and checkpoint.exists():
            search.load(checkpoint)
        observer.start("search", settings.steps, search.loop.step)

        def after_step(report: StepReport) -> None:
            done = report.step + 1
            observer.step("search", done, search.observe(report))
            if checkpoint is not None and (done % settings.checkpoint_every == 0 or search.ends(done)):
                search.save(checkpoint)

        try:
            search.run(after_step)
        except NonFiniteLoss as error:
            raise InputError(search.explain(error, checkpoint)) from error
        if search.stopped:
            taken = f"{search.loop.step} of {settings.steps} steps"
            observer.message(f"The search stopped after {taken}: {search.stopped}.")
        observer.finish("search")
        try:
            outcome = search.outcome(origin)
        except NonFiniteLoss as error:
            raise InputError(
                f"Play-off: the {error.level} loss is {error.value} at step {error.step} of an architecture that is "
                "trained alone. Lower search.learning_rate or training.learning_rate, or choose another selection."
            ) from error
        if inspect is not None:
            inspect(supernet, outcome, search.measure)
        return outcome


class _Search:
    """The bilevel problem of one search, its loop and what is recorded of it."""

    def __init__(
        self,
        model: nn.Module,
        supernet: Supernet,
        head: dict[str, nn.Parameter],
        train_batches: Batches,
        val_batches: Batches,
        space: SearchSpace,
        budget: Budget,
        settings: SearchSettings,
        loss: Callable[[nn.Module, Batch], Tensor],
    ) -> None:
        self.model, self.supernet, self.head, self.loss = model, supernet, head, loss
        self.train_batches, self.val_batches, self.select_batches = train_batches, val_batches, val_batches
        self.space, self.allowed, self.settings = space, budget, settings
        self.budget = budget.params
        weights = [*supernet.weights().values(), *head.values()]
        self.device = weights[0].device
        # The architecture lives on the CPU: its budget is held by bisection in float64, which mps lacks and which
        # would make a GPU wait at every halving.
        self.costs, self.forbidden = space.costs(), ~space.admissible()
        self.logits = torch.zeros(self.costs.shape, requires_grad=True)
        self.relaxation: Relaxation = registry("relaxation").build(settings.relaxation)
        spectral = bool(registry("start").get(settings.start).open_warmup)
        self.schedule = Schedule(
            settings.steps, settings.warmup, settings.every, settings.ramp, settings.max_grad_norm, restart=spectral
        )
        self.open_steps = settings.warmup if spectral else 0
        micro = settings.gradient_accumulation

        def upper_loss(number: int, bf16: bool = settings.bf16) -> Tensor:
            return self._loss("upper", number, self._upper_at(number // micro), val_batches[number], bf16)

        self.problem = BilevelProblem(
            lower=self._lower(),
            upper=Level("upper", upper_loss, micro, lambda n: upper_loss(n, bf16=False)),
            weights=weights,
            arch=[self.logits],
            distribution=self.distribution,
        )
        self.loop = self._loop(self.problem, self.schedule, self._guard())
        self._tilted: tuple[tuple[int, int], Tensor] | None = None
        self.trace = _Trace(settings.steps)
        self.energy: Tensor | None = None

    def _lower(self, begin: int = 0) -> Level:
        """The weights' loss; its step 0 is step ``begin`` of the search."""
        micro = self.settings.gradient_accumulation

        def loss(number: int, bf16: bool = self.settings.bf16) -> Tensor:
            number += begin * micro
            return self._loss("lower", number, number // micro, self.train_batches[number], bf16)

        return Level("lower", loss, micro, lambda n: loss(n, bf16=False))

    def _loop(self, problem: BilevelProblem, schedule: Schedule, guard: Guard | None = None) -> BilevelLoop:
        settings = self.settings
        return BilevelLoop(
            problem,
            registry("hypergradient").build(settings.hypergradient),
            torch.optim.AdamW(problem.weights, lr=settings.learning_rate, weight_decay=settings.weight_decay),
            torch.optim.Adam(problem.arch, lr=settings.arch_learning_rate, betas=(0.5, 0.999)),
            schedule,
            _read_every(self.device, settings.checkpoint_every),
            guard,
        )

    def _guard(self) -> Guard:
        """The guard, as new: one given as an object may have looked after another search."""
        stop, guards = self.settings.stop, registry("guard")
        own = guards.settings(stop) if isinstance(stop, str) else ()
        given = {key: getattr(self.settings, f"stop_{key}") for key in own if hasattr(self.settings, f"stop_{key}")}
        guard: Guard = deepcopy(guards.build(stop, **given))
        return guard

    @property
    def stopped(self) -> str:
        """Why a guard stopped the search; empty while none did."""
        return self.loop.guard.reason if self.loop.stopped and self.loop.guard is not None else ""

    def ends(self, done: int) -> bool:
        """Whether the search ends with ``done`` steps taken."""
        return done == self.settings.steps or (self.loop.stopped and done == self.loop.step)

    def run(self, after_step: Callable[[StepReport], None]) -> None:
        """Take the steps that remain, and what lies between warm-up and search."""
        if self.loop.step <= self.open_steps:
            self.loop.run(after_step, until=self.open_steps)
            if self.open_steps:
                self.start_from_spectrum()
        self.loop.run(after_step)

    def start_from_spectrum(self) -> None:
        """Turn what the open supernet has learnt into logits, and into every block count's own factors."""
        self.supernet.open()
        if not any(bool(layer.change().any()) for layer in self.supernet.layers.values()):
            return  # the loss reaches no adapter: there is nothing to take apart, and no logit moves
        batches = range(_spectrum_batches(self.settings.steps))
        losses = [partial(self._judge, self.val_batches, number) for number in batches]
        found = spectrum(self.supernet, sample_layers(self.supernet.layers, losses))
        for name, layer in self.supernet.layers.items():
            layer.load(found.blocks[name])
        scores = found.curvature.masked_fill(self.forbidden, -torch.inf)
        start = self.relaxation.logits(sharpened(scores, self.costs, self.budget, START_ENTROPY))
        with torch.no_grad():
            self.logits.copy_(start.nan_to_num(neginf=0.0))
        self.energy = found.energy
        self.loop.optimizers["lower"].state.clear()  # its moments belong to factors that are no more
        if self.open_steps == self.settings.steps:
            self.trace.add(self.settings.steps, self.distribution(self.settings.steps), last=True)

    def _judge(self, batches: Batches, number: int) -> Tensor:
        """The loss on a batch, of the supernet as it is mixed."""
        evaluation_mode(self.model)
        batch = {key: value.to(self.device) for key, value in batches[number].items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bf16):
            return self.loss(self.model, batch)

    @torch.no_grad()
    def measure(self, picks: Sequence[int]) -> float:
        """The loss of one architecture in the supernet's weights, on the first batches of the architecture's data."""
        self.supernet.draw(self.space.shapes(picks))
        return self._mean_loss(self.val_batches, MEASURED_BATCHES)

    @torch.no_grad()
    def _mean_loss(self, batches: Batches, count: int) -> float:
        """Mean loss on the first batches, of the supernet as it is mixed.

        Raises:
            InputError: If it is not finite.
        """
        loss = float(torch.stack([self._judge(batches, number) for number in range(count)]).mean())
        if not math.isfinite(loss):
            raise InputError(
                f"Search: the loss of an architecture in the supernet's weights is {loss}. "
                "Lower search.learning_rate or training.learning_rate, or look at the data."
            )
        return loss

    def _upper_at(self, number: int) -> int:
        """The weight step that upper step ``number`` precedes."""
        return self.settings.warmup + number * self.settings.every

    def _loss(self, level: str, number: int, step: int, batch: Batch, bf16: bool) -> Tensor:
        """The loss of one micro-batch. Its randomness (dropout, Gumbel draws) is seeded by its number, so that a
        resumed search needs no generator state."""
        seed = derive(self.settings.seed, "search", level, number)
        seed_pass(seed, self.device)
        if step < self.open_steps:
            self.supernet.open()
        elif step < self.settings.steps:  # after that, in a play-off, one architecture has been drawn
            self.supernet.mix(self.mixing_probs(step, torch.Generator().manual_seed(seed)))
        # Dropout is for the weights; the architecture is judged as it would be used.
        if level == "lower":
            self.model.train()
        else:
            evaluation_mode(self.model)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            return self.loss(
                self.model, {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}
            )

    def temperature(self, step: int) -> float:
        """Exponential from the first temperature to the last, over the steps after warm-up."""
        start, end = self.settings.temperature_start, self.settings.temperature_end
        return float(start * (end / start) ** self.schedule.progress(step))

    def tilted_logits(self, step: int) -> Tensor:
        """Logits tilted under the budget; those without gradients are kept until the logits or the step change."""
        key = (step, self.logits._version)
        if self.logits.requires_grad and torch.is_grad_enabled():
            return self._tilt(step)
        if self._tilted is None or self._tilted[0] != key:
            self._tilted = key, self._tilt(step).detach()
        return self._tilted[1]

    def _tilt(self, step: int) -> Tensor:
        allowed = self.logits.masked_fill(self.forbidden, -torch.inf)
        temperature = self.distribution_temperature(step)
        return self.relaxation.scores(allowed, lambda s: hold_budget(s, self.costs, self.budget, temperature))

    def distribution_temperature(self, step: int) -> float:
        """Temperature of the distribution that the logits stand for."""
        return self.temperature(step) if self.relaxation.tempers_logits else 1.0

    def mixing_probs(self, step: int, generator: torch.Generator) -> Tensor:
        return self.relaxation.mixing_probs(self.tilted_logits(step), self.temperature(step), generator)

    @torch.no_grad()
    def distribution(self, step: int) -> Tensor:
        """Probabilities of every choice under the budget, ``(groups, choices)``."""
        return torch.softmax(self.tilted_logits(step) / self.distribution_temperature(step), dim=-1)

    def observe(self, report: StepReport) -> dict[str, float]:
        """Record a snapshot and return the step's metrics."""
        probs = self.distribution(report.step)
        self.trace.add(report.step, probs, last=self.ends(report.step + 1))
        entropy = torch.special.entr(probs).sum(dim=-1).mean()
        metrics = {
            "search/lower_loss": report.lower_loss,
            "search/lower_lr": report.lower_lr,
            "search/expected_params": float(expected_cost(probs, self.costs)),
            "search/entropy": float(entropy),
            "search/temperature": self.temperature(report.step),
        }
        if report.upper_loss is not None:
            metrics["search/upper_loss"] = report.upper_loss
        if self.loop.stopped and self.ends(report.step + 1):
            metrics["search/stopped"] = 1.0
        return metrics

    def save(self, path: Path) -> None:
        tensors = {f"trace.{index}": probs for index, probs in enumerate(self.trace.probs)}
        if self.energy is not None:
            tensors["energy"] = self.energy
        save_tensors(path, {**self.loop.state_tensors(), **tensors}, {"trace_steps": self.trace.steps})

    def load(self, path: Path) -> None:
        tensors, info = load_tensors(path)
        try:
            self.loop.load_state_tensors(tensors)
        except (ValueError, KeyError) as error:
            raise InputError(
                f"{path}: belongs to another search ({error}); remove it to begin this phase anew."
            ) from error
        self.energy = tensors.get("energy")
        self.trace.steps = info["trace_steps"]
        self.trace.probs = [tensors[f"trace.{index}"] for index in range(len(self.trace.steps))]

    def explain(self, error: NonFiniteLoss, checkpoint: Path | None) -> str:
        """One message for a loss that is not finite."""
        step = error.step if error.level == "lower" else self._upper_at(error.step)
        rate = self.settings.learning_rate * self.schedule.lower_factor(step)
        kept = (
            f" The last good checkpoint is kept: {checkpoint}."
            if checkpoint is not None and checkpoint.exists()
            else " No checkpoint had been written."
        )
        return (
            f"Search: the {error.level} loss is {error.value} at weight step {step} (learning rate "
            f"{rate:.3g}, "
            f"{error.level} batch {error.step * self.settings.gradient_accumulation + error.micro_batch}).{kept} "
            "Lower search.learning_rate or training.learning_rate, or look at that batch."
        )

    def select(self) -> Sequence[int]:
        """One choice a group, by the selection of the settings; a play-off leaves the weights of its winner behind."""
        settings, selections = self.settings, registry("selection")
        scores = self.relaxation.scores(self.logits.detach().masked_fill(self.forbidden, -torch.inf))
        scores = scores.masked_fill(self.forbidden, 0.0)
        playoff = self._playoff()
        evidence = Evidence(
            priors=[scores] if self.energy is None else [scores, self.energy],
            costs=self.costs,
            allowed=~self.forbidden,
            budget=self.budget,
            generator=torch.Generator().manual_seed(derive(settings.seed, "selection")),
            measure=self.measure,
            train_and_measure=playoff,
            measurements=settings.measurements,
            usual_measurements=_measurements(settings.steps),
            finalists=settings.playoff,
        )
        picks: Sequence[int] = selections.build(settings.selection)(evidence)
        evidence.check(picks, selections.chosen_by(settings.selection))
        playoff.leave(picks)
        return picks

    def _playoff(self) -> PlayOff:
        """Trains architectures alone, on batches after the search's own; each sees the same ones."""
        settings = self.settings
        steps = settings.playoff_steps or max(1, round(PLAYOFF_STEPS * settings.steps))
        schedule = Schedule(steps, steps, 1, settings.ramp, settings.max_grad_norm, restart=True)
        problem = replace(self.problem, lower=self._lower(begin=settings.steps))
        return PlayOff(
            self.problem.weights,
            lambda picks: self.supernet.draw(self.space.shapes(picks)),
            lambda: self._loop(problem, schedule),
            lambda: self._mean_loss(self.select_batches, PLAYOFF_BATCHES),
        )

    def outcome(self, origin: Origin) -> SearchOutcome:
        if not bool((self.logits.detach().abs() > 1e-8).any()):
            raise RunError(
                "The search moved no architecture logit: it had too few steps (search.steps), or the loss does not "
                "depend on the searched modules."
            )
        picks = self.select()
        shapes = self.space.shapes(picks)
        return SearchOutcome(
            architecture=origin.architecture(
                shapes, self.space, self.allowed, self.settings, self.loop.step, self.stopped
            ),
            shapes=shapes,
            params=sum(int(self.costs[group, pick]) for group, pick in enumerate(picks)),
            factors={name: (a.cpu(), b.cpu()) for name, (a, b) in self.supernet.factors(shapes).items()},
            head={name: weight.detach().cpu().clone() for name, weight in self.head.items()},
            logits=self.logits.detach(),
            probs=self.distribution(self.loop.step - 1),
            trajectory=torch.stack(self.trace.probs),
            trajectory_steps=self.trace.steps,
            steps=self.loop.step,
            stopped=self.stopped,
        )


def _check_batches(**given: Any) -> None:
    """Refuse a list, which ends, and a DataLoader, whose batches have no numbers."""
    for name, batches in given.items():
        if batches is not None and (isinstance(batches, Sequence) or not hasattr(batches, "__getitem__")):
            raise InputError(
                f"{name}: a search asks for batches by number, without end, and a {type(batches).__name__} has an end "
                "or no numbers; wrap the data: morenas.numbered_batches(dataset, batch_size, collate_fn)."
            )


def _spectrum_batches(steps: int) -> int:
    """Batches that a spectral start looks at after so many weight steps."""
    return max(1, min(SPECTRUM_BATCHES, steps // 8))


def _measurements(steps: int) -> int:
    """Architectures to measure after so many weight steps: few in a short search, which they would outweigh."""
    return max(round(MEASUREMENTS * steps), min(FEWEST_MEASUREMENTS, steps // 5), 1)


def _read_every(device: torch.device, checkpoint_every: int) -> int:
    """Weight steps between readings of the losses: elsewhere than on a processor every reading waits for the device.

    All are read where a checkpoint is due: it must hold no step that was not looked at.
    """
    return 1 if device.type == "cpu" else math.gcd(READ_EVERY, checkpoint_every)
