"""The bilevel loop: warm the weights up, then alternate, every step a pure function of the state before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from morenas.bilevel.guards import Guard
from morenas.bilevel.hypergradients import Hypergradient
from morenas.bilevel.problem import BilevelProblem, Step, StepLosses
from morenas.bilevel.weight_step import WeightStep


@dataclass(frozen=True)
class Schedule:
    """When which level moves, and how fast. Everything is a function of the step number, so nothing restarts.

    Attributes:
        steps: Lower (weight) steps in all.
        warmup: Lower steps before the first upper step: a zero-initialised factor gives no architecture gradient.
        every: Lower steps between upper steps.
        ramp: Share of the steps over which the lower learning rate rises linearly.
        restart: Whether the warm-up is a search phase of its own: the lower learning rate runs through ramp and cosine
            in it and once more after it, and there may be nothing after it.
        max_grad_norm: Gradients of the weights are clipped to this norm; 0 for no clipping.
        decay: Whether the lower learning rate falls by a cosine after its rise; else it stays at its peak.
    """

    steps: int
    warmup: int
    every: int
    ramp: float = 0.06
    max_grad_norm: float = 1.0
    restart: bool = False
    decay: bool = True

    def upper_steps(self) -> int:
        """Upper steps in all."""
        return sum(self.is_upper(step) for step in range(self.steps))

    def is_upper(self, step: int) -> bool:
        """Whether an upper step precedes lower step ``step``."""
        return step >= self.warmup and (step - self.warmup) % self.every == 0

    def upper_number(self, step: int) -> int:
        """How many upper steps precede lower step ``step``, one at ``step`` itself not counted."""
        return max(0, math.ceil((step - self.warmup) / self.every))

    def upper_at(self, number: int) -> int:
        """The lower step that upper step ``number`` precedes."""
        return self.warmup + number * self.every

    def progress(self, step: int) -> float:
        """Share of the time after warm-up that has passed, 0 to 1: what temperatures are annealed by."""
        return min(1.0, max(0.0, (step - self.warmup) / max(1, self.steps - self.warmup - 1)))

    def lower_factor(self, step: int) -> float:
        """Factor on the lower learning rate at ``step``."""
        start, end = 0, self.steps
        if self.restart:
            start, end = (0, self.warmup) if step < self.warmup else (self.warmup, self.steps)
        factor = ramp_and_cosine(step - start, end - start, self.ramp)
        return factor if self.decay or step - start < rising_steps(end - start, self.ramp) else 1.0


def ramp_and_cosine(step: int, steps: int, ramp: float) -> float:
    """Factor on a learning rate: linear over the share ``ramp`` of the steps, then a cosine down to zero."""
    rising = rising_steps(steps, ramp)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def rising_steps(steps: int, ramp: float) -> int:
    """Steps over which a learning rate rises: the share ``ramp`` of them, one at least; none for a share of 0."""
    return max(1, round(ramp * steps)) if ramp else 0


@dataclass(frozen=True)
class StepReport:
    """What one step did. ``upper_loss`` is None where no upper step was taken."""

    step: int
    lower_loss: float
    upper_loss: float | None
    lower_lr: float


@dataclass(frozen=True)
class _Taken:
    """A step whose losses may still be on their device."""

    step: int
    lower: StepLosses
    upper: StepLosses | None
    lower_lr: float

    def report(self) -> StepReport:
        upper = None if self.upper is None else self.upper.read()
        return StepReport(self.step, self.lower.read(), upper, self.lower_lr)


class BilevelLoop:
    """Runs a bilevel problem.

    Invariant: the state is (parameters, optimizer state, step number, the guard's state) and nothing else;
    ``state_tensors`` and ``load_state_tensors`` carry all of it, so that a loop that is interrupted and resumed repeats
    one that never was.

    Attributes:
        step: The lower step that is next.
        stopped: Whether a guard has ended the loop before its schedule does.
    """

    def __init__(
        self,
        problem: BilevelProblem,
        hypergradient: Hypergradient,
        lower_optimizer: torch.optim.Optimizer,
        upper_optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        read_every: int = 1,
        guard: Guard | None = None,
    ) -> None:
        """Check that each optimizer holds exactly its level's parameters.

        Args:
            read_every: Lower steps between readings of the lower losses. 1 finds a loss that is not finite before it
                reaches any weight, and waits for the device in every step; with more, losses are read then, before
                every upper step and at the end.
            guard: Looks after every upper step; where it says stop, the lower step there is the last.

        Raises:
            ValueError: If an optimizer holds other tensors than its level, or the schedule never moves the upper level.
        """
        _check_holds("lower", lower_optimizer, problem.weights)
        _check_holds("upper", upper_optimizer, problem.arch)
        if schedule.upper_steps() == 0 and not schedule.restart:
            raise ValueError(
                f"A schedule of {schedule.steps} steps with a warm-up of {schedule.warmup} takes no upper step: "
                "nothing would be searched."
            )
        self.problem = problem
        self.hypergradient = hypergradient
        self.optimizers = {"lower": lower_optimizer, "upper": upper_optimizer}
        self.schedule = schedule
        self.read_every = read_every
        self.guard = guard
        self.stopped = False
        self._unread: list[_Taken] = []
        self.base_rates = [group["lr"] for group in lower_optimizer.param_groups]
        self.step = 0

    def run(self, after_step: Callable[[StepReport], None] = lambda report: None, until: int | None = None) -> None:
        """Take the steps that remain; ``after_step`` is called for each, in order, once its losses are read.

        Args:
            until: Lower step to stop before; None for the last.
        Raises:
            NonFiniteLoss: If a loss is NaN or infinite.
        """
        end = self.schedule.steps if until is None else until
        while self.step < end and not self.stopped:
            upper, rate = None, self._set_rates()
            if self.schedule.is_upper(self.step):
                self._report(after_step)
                upper = self._upper_step()
            lower = self._lower_step()
            self._unread.append(_Taken(self.step, lower, upper, rate))
            self.step += 1
            if self.step % self.read_every == 0 or self.step == end or self.stopped:
                self._report(after_step)

    def _report(self, after_step: Callable[[StepReport], None]) -> None:
        while self._unread:
            report = self._unread[0].report()
            del self._unread[0]
            after_step(report)

    def _upper_step(self) -> StepLosses:
        ahead = WeightStep(self.optimizers["lower"], self.schedule.max_grad_norm)
        step = Step(self.schedule.upper_number(self.step), self.step, ahead)
        losses, grads = self.hypergradient(self.problem, step)
        losses.read()  # the architecture decides what comes next: nothing that is not finite may reach it
        self._apply("upper", self.problem.arch, grads)
        self.stopped = self.guard is not None and self.guard.look(self.problem, step.upper, step.lower)
        return losses

    def _set_rates(self) -> float:
        """Set the lower learning rates of this step, before the upper step that may look ahead; return the first."""
        factor = self.schedule.lower_factor(self.step)
        for group, base in zip(self.optimizers["lower"].param_groups, self.base_rates, strict=True):
            group["lr"] = base * factor
        return self.base_rates[0] * factor

    def _lower_step(self) -> StepLosses:
        losses, grads = self.problem.gradients(self.problem.lower, self.step, self.problem.weights)
        if self.read_every == 1:
            losses.read()
        self._apply("lower", self.problem.weights, grads, self.schedule.max_grad_norm)
        return losses

    def _apply(self, level: str, tensors: Sequence[Tensor], grads: list[Tensor], max_norm: float = 0.0) -> None:
        for tensor, grad in zip(tensors, grads, strict=True):
            tensor.grad = grad
        if max_norm:
            torch.nn.utils.clip_grad_norm_(tensors, max_norm)
        self.optimizers[level].step()
        self.optimizers[level].zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        """The whole state as named tensors."""
        state: dict[str, Tensor] = {"step": torch.tensor(self.step)}
        if self.guard is not None:
            state["stopped"] = torch.tensor(self.stopped)
            state |= {f"guard.{key}": value for key, value in self.guard.state_tensors().items()}
        for level, tensors in (("lower", self.problem.weights), ("upper", self.problem.arch)):
            for index, tensor in enumerate(tensors):
                state[f"{level}.{index}"] = tensor.detach()
                for key, value in self.optimizers[level].state[tensor].items():
                    state[f"{level}.{index}.{key}"] = torch.as_tensor(value)
        return state

    @torch.no_grad()
    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        """Take up the state that ``state_tensors`` gave.

        Raises:
            ValueError: If a parameter is missing or has another shape.
        """
        for level, tensors in (("lower", self.problem.weights), ("upper", self.problem.arch)):
            for index, tensor in enumerate(tensors):
                saved = state.get(f"{level}.{index}")
                if saved is None or saved.shape != tensor.shape:
                    raise ValueError(f"The state of {level} parameter {index} is missing or has another shape.")
                tensor.copy_(saved)
                prefix = f"{level}.{index}."
                entries = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
                # torch keeps an optimizer's step counter on the CPU, its moments beside the parameter.
                self.optimizers[level].state[tensor] = {
                    key: value.clone() if value.ndim == 0 else value.to(tensor.device).clone()
                    for key, value in entries.items()
                }
        self.step = int(state["step"])
        if self.guard is not None:
            self.stopped = bool(state.get("stopped", False))
            kept = {key.removeprefix("guard."): value for key, value in state.items() if key.startswith("guard.")}
            self.guard.load_state_tensors(kept)


def _check_holds(level: str, optimizer: torch.optim.Optimizer, tensors: object) -> None:
    held = {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
    own = {id(tensor) for tensor in tensors}  # type: ignore[attr-defined]
    if held != own:
        raise ValueError(
            f"The {level} optimizer holds {len(held - own)} tensors that are not of its level and lacks "
            f"{len(own - held)} that are."
        )
