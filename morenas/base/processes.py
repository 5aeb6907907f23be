"""Several processes at work on one run: what is dealt out to them comes back to each of them, whole and in order.

All do the same with the same numbers, so that their states are equal to the last bit without ever being sent. What is
dear is computed by one of them and handed to the others: micro-batches of a step, measured architectures, predictions.
Sums are taken in the order in which one process takes them; so the number of processes changes no result.

One process alone, which is the usual case, computes everything itself, and ``torch.distributed`` is not asked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from morenas.base.errors import InputError, RunError, one_line

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
R = TypeVar("R")
K = TypeVar("K", int, str)
V = TypeVar("V")

CHUNK = 1 << 24  # numbers that are sent at once: every process then holds one such piece of each of the others


class ProcessLost(RuntimeError):
    """Another process of the run has ended, or does not answer."""


def count() -> int:
    """How many processes work on this run."""
    return _distributed().get_world_size() if _joined() else 1


def number() -> int:
    """Which of them this one is, from 0; the first owns the run directory."""
    return _distributed().get_rank() if _joined() else 0


def is_own(place: int) -> bool:
    """Whether this process computes what stands at a place of a sequence that is dealt out."""
    return place % count() == number()


def collect(items: Sequence[T], compute: Callable[[T], R]) -> list[R]:
    """The results of all items, in order; every process computes its share.

    Args:
        compute: Its results are sent to the other processes as copies: tensors must be on the CPU.
    Raises:
        InputError, RunError: If ``compute`` raises it in any of the processes; then in all of them.
    """
    if count() == 1:
        return [compute(item) for item in items]
    own: list[R] | InputError | RunError
    try:
        own = [compute(item) for place, item in enumerate(items) if is_own(place)]
    except (InputError, RunError) as error:
        own = error
    shares = exchange(own)
    for share in shares:
        if isinstance(share, Exception):
            raise share
    return [shares[place % len(shares)][place // len(shares)] for place in range(len(items))]


def merge(own: Mapping[K, V]) -> dict[K, V]:
    """What all processes have found, by key, in the order of the keys."""
    found = {key: value for share in exchange(dict(own)) for key, value in share.items()}
    return {key: found[key] for key in sorted(found)}


def exchange(own: Any) -> list[Any]:
    """What every process gives, in the order of the processes."""
    if count() == 1:
        return [own]
    shares = [None] * count()
    with _in_touch():
        _distributed().all_gather_object(shares, own)
    return shares


def add_shares(total: Tensor | None, own: Tensor, shares: int) -> Tensor:
    """Add a vector of each of the first processes to a total, in the order of the processes.

    Args:
        total: So far; None for nothing.
        own: The vector of this process; of one that has no share it is not looked at, but for its length.
        shares: How many processes have one.
    """
    import torch

    sums = torch.empty_like(own) if total is None else total
    for piece, into in zip(own.split(CHUNK), sums.split(CHUNK), strict=True):
        parts = [torch.empty_like(piece) for _ in range(count())]
        with _in_touch():
            _distributed().all_gather(parts, piece.contiguous())
        for place, part in enumerate(parts[:shares]):
            if total is None and place == 0:
                into.copy_(part)
            else:
                into.add_(part)
    return sums


def check_same(what: str, value: Callable[[], str]) -> None:
    """Notice that processes have come apart.

    Args:
        value: Gives what must be equal in all of them, a digest say.
    Raises:
        RunError: If it is not.
    """
    if count() == 1:
        return
    values = exchange(value())
    if others := [place for place, other in enumerate(values) if other != values[0]]:
        raise RunError(
            f"Process {others[0]} of {len(values)} has another {what} than process 0: they have come apart. Processes "
            "of one run need the same versions, the same kind of device and the same files; look at what differs, and "
            "start a new run."
        )


def _joined() -> bool:
    if "torch" not in sys.modules:  # nobody can have joined
        return False
    return bool(_distributed().is_available() and _distributed().is_initialized())


def _distributed() -> Any:
    import torch.distributed

    return torch.distributed


@contextmanager
def _in_touch() -> Iterator[None]:
    """Say in words that another process is gone: the libraries say it in many ways."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLost(
            f"process {number()} of {count()} waited for the others in vain ({one_line(error)}): one has ended, "
            "or hangs"
        ) from error
