"""The search as one call, for anybody's model and batches: no Hydra, no files but an optional checkpoint."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from morenas.bilevel import (
    HYPERGRADIENTS,
    BilevelLoop,
    BilevelProblem,
    Level,
    NonFiniteLoss,
    Schedule,
    StepReport,
    expected_cost,
    hold_budget,
)
from morenas.checkpoint import load_tensors, save_tensors
from morenas.errors import InputError, RunError
from morenas.seeds import derive, seed_pass
from morenas.selection import SELECTIONS
from morenas.space import Choice, SearchSpace
from morenas.supernet import RELAXATIONS, SHARINGS, Supernet
from morenas.tracking.observer import NullObserver, Observer

SNAPSHOTS = 200  # mixing probabilities kept of a search, evenly spread
READ_EVERY = 10  # weight steps between readings of the weights' losses from an accelerator, at most

NAMES: dict[str, Collection[str]] = {
    "relaxation": RELAXATIONS,
    "sharing": SHARINGS,
    "hypergradient": HYPERGRADIENTS,
    "selection": SELECTIONS,
}
"""What each setting that is a name may be."""

Batch = Mapping[str, Tensor]


class Batches(Protocol):
    """An endless sequence of batches; each must be a pure function of its number."""

    def __getitem__(self, number: int) -> Batch: ...


@dataclass(frozen=True)
class SearchSettings:
    """How to search. Steps are weight steps; learning rates are those of AdamW (weights) and Adam (logits).

    Raises:
        InputError: If a value is out of range, or a name is unknown.
    """

    steps: int
    warmup: int
    every: int = 2
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    max_grad_norm: float = 1.0
    ramp: float = 0.06
    arch_learning_rate: float = 0.1
    gradient_accumulation: int = 1
    relaxation: str = "softmax"
    sharing: str = "full"
    temperature_start: float = 1.0
    temperature_end: float = 0.2
    hypergradient: str = "first_order"
    selection: str = "budgeted"
    checkpoint_every: int = 50
    bf16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "every", "gradient_accumulation", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"search.{name}={getattr(self, name)}: must be at least 1.")
        for name in ("learning_rate", "arch_learning_rate", "temperature_start", "temperature_end"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"search: {name}={getattr(self, name)} must be above 0, and finite.")
        if not 0 <= self.max_grad_norm < math.inf:
            raise InputError(f"search: max_grad_norm={self.max_grad_norm} must be finite, and at least 0: no clipping.")
        if not 0 <= self.warmup < self.steps:
            raise InputError(
                f"search: warmup={self.warmup} must be at least 0 and below steps={self.steps}; else no architecture "
                "step would be taken."
            )
        for name, known in NAMES.items():
            if getattr(self, name) not in known:
                raise InputError(f"search: {name}={getattr(self, name)!r} is none of {', '.join(known)}.")


@dataclass(frozen=True)
class SearchOutcome:
    """What a search found.

    Attributes:
        shapes: Module name to ``(nblocks, blk_r)``; modules without an adapter are absent.
        params: Adapter parameters of ``shapes``; never more than the budget.
        factors: Trained blocks of each adapter under the cyclic link.
        head: Trained head parameters by name.
        logits: Final architecture logits, ``(groups, choices)``.
        probs: Final mixing probabilities under the budget, same shape.
        trajectory: Mixing probabilities over time, ``(snapshots, groups, choices)``.
        trajectory_steps: Weight step of each snapshot.
    """

    shapes: dict[str, Choice]
    params: int
    factors: dict[str, tuple[Tensor, Tensor]]
    head: dict[str, Tensor]
    logits: Tensor
    probs: Tensor
    trajectory: Tensor
    trajectory_steps: list[int]


@dataclass
class _Trace:
    """Snapshots of the mixing probabilities, thinned to at most ``SNAPSHOTS``."""

    total: int
    steps: list[int] = field(default_factory=list)
    probs: list[Tensor] = field(default_factory=list)

    def add(self, step: int, probs: Tensor) -> None:
        if step % max(1, self.total // SNAPSHOTS) == 0 or step == self.total - 1:
            self.steps.append(step)
            self.probs.append(probs.detach().float().cpu())


def search_architecture(
    model: nn.Module,
    train_batches: Batches,
    val_batches: Batches,
    space: SearchSpace,
    budget: int,
    settings: SearchSettings,
    head: Sequence[str] = (),
    loss: Callable[[nn.Module, Batch], Tensor] = lambda model, batch: model(**batch).loss,
    checkpoint: Path | None = None,
    observer: Observer = NullObserver(),  # noqa: B008  it has no state
) -> SearchOutcome:
    """Search the adapter architecture of ``model`` under a budget by bilevel optimization.

    Weights (adapters of the supernet, and the head) descend the loss on ``train_batches``; architecture logits
    descend it on ``val_batches``. The model is given back as it came: same modules, same parameters.

    Args:
        model: Pretrained model on its device; it stays frozen but for the head.
        train_batches: Weight batches by micro-batch number.
        val_batches: Architecture batches by micro-batch number.
        space: From ``morenas.space.build_space``.
        budget: Adapter parameters, head not counted.
        settings: See ``SearchSettings``.
        head: Names of modules trained beside the adapters.
        loss: Scalar loss of the model on a batch.
        checkpoint: File to keep the state in; if it is there, the search goes on from it, bit for bit on a CPU.
        observer: Told of every weight step, with metrics of the ``search/`` family.
    Raises:
        InputError: If a loss is not finite, or the checkpoint is not whole or of another search.
        RunError: If no logit moved: the search did nothing.
    """
    with _prepared(model, space, settings, head) as (supernet, head_weights):
        search = _Search(model, supernet, head_weights, train_batches, val_batches, space, budget, settings, loss)
        if checkpoint is not None and checkpoint.exists():
            search.load(checkpoint)
        observer.start("search", settings.steps, search.loop.step)

        def after_step(report: StepReport) -> None:
            done = report.step + 1
            observer.step("search", done, search.observe(report))
            if checkpoint is not None and (done % settings.checkpoint_every == 0 or done == settings.steps):
                search.save(checkpoint)

        try:
            search.loop.run(after_step)
        except NonFiniteLoss as error:
            raise InputError(search.explain(error, checkpoint)) from error
        observer.finish("search")
        return search.outcome()


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
        budget: int,
        settings: SearchSettings,
        loss: Callable[[nn.Module, Batch], Tensor],
    ) -> None:
        self.model, self.supernet, self.head, self.loss = model, supernet, head, loss
        self.space, self.budget, self.settings = space, budget, settings
        weights = [*supernet.weights().values(), *head.values()]
        self.device = weights[0].device
        # The architecture lives on the CPU: its budget is held by bisection in float64, which mps lacks and which
        # would make a GPU wait at every halving.
        self.costs, self.forbidden = space.costs(), ~space.admissible()
        self.logits = torch.zeros(self.costs.shape, requires_grad=True)
        self.relaxation = RELAXATIONS[settings.relaxation]
        self.schedule = Schedule(settings.steps, settings.warmup, settings.every, settings.ramp, settings.max_grad_norm)
        micro = settings.gradient_accumulation

        def lower_loss(number: int, bf16: bool = settings.bf16) -> Tensor:
            return self._loss("lower", number, number // micro, train_batches[number], bf16)

        problem = BilevelProblem(
            lower=Level("lower", lower_loss, micro, lambda n: lower_loss(n, bf16=False)),
            upper=Level(
                "upper",
                lambda n: self._loss("upper", n, self._upper_at(n // micro), val_batches[n], settings.bf16),
                micro,
            ),
            weights=weights,
            arch=[self.logits],
        )
        self.loop = BilevelLoop(
            problem,
            HYPERGRADIENTS[settings.hypergradient],
            torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay),
            torch.optim.Adam([self.logits], lr=settings.arch_learning_rate, betas=(0.5, 0.999)),
            self.schedule,
            _read_every(self.device, settings.checkpoint_every),
        )
        self._tilted: tuple[tuple[int, int], Tensor] | None = None
        self.trace = _Trace(settings.steps)

    def _upper_at(self, number: int) -> int:
        """The weight step that upper step ``number`` precedes."""
        return self.settings.warmup + number * self.settings.every

    def _loss(self, level: str, number: int, step: int, batch: Batch, bf16: bool) -> Tensor:
        """The loss of one micro-batch. Its randomness (dropout, Gumbel draws) is seeded by its number, so that a
        resumed search needs no generator state."""
        seed = derive(self.settings.seed, "search", level, number)
        seed_pass(seed, self.device)
        self.supernet.mix(self.mixing_probs(step, torch.Generator().manual_seed(seed)))
        # Dropout is for the weights; the architecture is judged as it would be used.
        self.model.train(level == "lower")
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
        return hold_budget(allowed, self.costs, self.budget, self.distribution_temperature(step))

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
        self.trace.add(report.step, probs)
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
        return metrics

    def save(self, path: Path) -> None:
        trace = {f"trace.{index}": probs for index, probs in enumerate(self.trace.probs)}
        save_tensors(path, {**self.loop.state_tensors(), **trace}, {"trace_steps": self.trace.steps})

    def load(self, path: Path) -> None:
        tensors, info = load_tensors(path)
        try:
            self.loop.load_state_tensors(tensors)
        except (ValueError, KeyError) as error:
            raise InputError(
                f"{path}: belongs to another search ({error}); remove it to begin this phase anew."
            ) from error
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

    def outcome(self) -> SearchOutcome:
        if not bool((self.logits.detach().abs() > 1e-8).any()):
            raise RunError(
                "The search moved no architecture logit: it had too few steps (search.steps), or the loss does not "
                "depend on the searched modules."
            )
        scores = self.logits.detach().masked_fill(self.forbidden, -torch.inf)
        picks = SELECTIONS[self.settings.selection](scores, self.costs, self.budget)
        shapes = self.space.shapes(picks)
        return SearchOutcome(
            shapes=shapes,
            params=sum(int(self.costs[group, pick]) for group, pick in enumerate(picks)),
            factors={name: (a.cpu(), b.cpu()) for name, (a, b) in self.supernet.factors(shapes).items()},
            head={name: weight.detach().cpu().clone() for name, weight in self.head.items()},
            logits=self.logits.detach(),
            probs=self.distribution(self.settings.steps - 1),
            trajectory=torch.stack(self.trace.probs),
            trajectory_steps=self.trace.steps,
        )


def _read_every(device: torch.device, checkpoint_every: int) -> int:
    """Weight steps between readings of the losses: elsewhere than on a processor every reading waits for the device.

    All are read where a checkpoint is due: it must hold no step that was not looked at.
    """
    return 1 if device.type == "cpu" else math.gcd(READ_EVERY, checkpoint_every)


@contextlib.contextmanager
def _prepared(
    model: nn.Module, space: SearchSpace, settings: SearchSettings, head: Sequence[str]
) -> Iterator[tuple[Supernet, dict[str, nn.Parameter]]]:
    """Freeze the model but for its head and inject the supernet; undo all of it at the end."""
    required = {parameter: parameter.requires_grad for parameter in model.parameters()}
    training = model.training
    head_weights = {
        f"{module}.{name}": parameter
        for module in head
        for name, parameter in model.get_submodule(module).named_parameters()
    }
    initial = {name: parameter.detach().clone() for name, parameter in head_weights.items()}
    model.requires_grad_(False)
    for parameter in head_weights.values():
        parameter.requires_grad_(True)
    supernet = Supernet(model, space, settings.sharing, derive(settings.seed, "supernet"))
    try:
        yield supernet, head_weights
    finally:
        supernet.remove()
        with torch.no_grad():
            for name, parameter in head_weights.items():
                parameter.copy_(initial[name])
        for parameter, requires_grad in required.items():
            parameter.requires_grad_(requires_grad)
        model.train(training)
