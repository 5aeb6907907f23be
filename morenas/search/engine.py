"""The search as one call, for anybody's model and batches: no Hydra, no files but an optional checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

from torch import nn

from morenas.base.seeds import derive
from morenas.search.data import SearchData
from morenas.search.objective import Loss, model_loss
from morenas.search.outcome import Origin, SearchOutcome
from morenas.search.settings import SearchSettings
from morenas.search.start import open_weight
from morenas.search.steps import Search
from morenas.space import Budget, SearchSpace
from morenas.supernet import Supernet
from morenas.supernet.prepare import prepared
from morenas.tasks.batches import Batch, Batches
from morenas.tracking.observer import NullObserver, Observer

Inspect = Callable[[Supernet, SearchOutcome, Callable[[Sequence[int]], float]], None]
__all__ = ["Batch", "Batches", "SearchData", "SearchOutcome", "SearchSettings", "search_architecture"]


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
    seed, weight = derive(settings.seed, "supernet"), open_weight(space, settings.open_rank)
    with prepared(model, space, settings.sharing, seed, head, weight) as (supernet, head_weights):
        search = Search(model, supernet, head_weights, data, allowed, settings, loss, checkpoint, observer)
        search.resume()
        search.warm_up()
        search.start()
        search.descend()
        outcome = search.discretize(origin)
        if inspect is not None:
            inspect(supernet, outcome, search.measurement)
        return outcome
