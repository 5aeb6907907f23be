"""Which settings of a search act in it: what would do nothing is refused, and not recorded as how it was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from morenas.base.errors import InputError
from morenas.base.registry import registry
from morenas.base.settings import record

if TYPE_CHECKING:
    from morenas.search.settings import SearchSettings

STANDING = {"every", "arch_learning_rate", "temperature_start", "temperature_end", "hypergradient"}
"""Settings that act only where weights move between architecture steps."""
PLAYOFF = {"playoff", "playoff_steps"}
UNMEASURED = ("argmax", "budgeted")
"""Selections that measure no architecture."""


def acting(settings: SearchSettings) -> dict[str, Any]:
    """The settings that act in a search, for a file: objects of doors by name and settings."""
    idle, recorded = STANDING if settings.stands else {"arch_steps"}, record(settings)
    recorded["relaxation"] = registry("relaxation").record(settings.acting_relaxation)
    if not registry("start").get(settings.start).open_warmup:
        idle = idle | {"open_rank"}
    if settings.stands and settings.arch_steps == 0:
        idle = idle | {"relaxation"}
    guard = {f"stop_{name}" for name in guard_settings(settings.stop)}
    idle = idle | {name for name in recorded if name.startswith("stop_")} - guard
    selection = registry("selection").chosen_by(settings.selection)
    if selection != "playoff":
        idle = idle | PLAYOFF
    if selection in UNMEASURED:
        idle = idle | {"measurements"}
    return {name: value for name, value in recorded.items() if name not in idle}


def guard_settings(stop: Any) -> tuple[str, ...]:
    """Settings of a guard that a search sets as ``stop_<setting>``: of one chosen by name; an object has its own."""
    return registry("guard").settings(stop) if isinstance(stop, str) else ()


def check_acting(settings: SearchSettings) -> None:
    """Refuse a warm-up that leaves nothing to do, and settings that would do nothing beside it.

    Raises:
        InputError: With the way out.
    """
    if registry("start").get(settings.start).open_warmup:
        _check_open_warmup(settings)
    elif not 0 <= settings.warmup < settings.steps:
        raise InputError(
            f"search: warmup={settings.warmup} must be at least 0 and below steps={settings.steps}; else no "
            "architecture step would be taken."
        )
    if settings.stands and (unused := _idle_where_weights_stand(settings)):
        raise InputError(
            f"search: {', '.join(unused)} would do nothing: with a warm-up of all weight steps the weights stand still "
            "while the architecture moves. Set search.warmup=0.7 to train both in turn after it, or search.start=level."
        )
    if not settings.stands and settings.arch_steps is not None:
        raise InputError(
            f"search: arch_steps={settings.arch_steps} would do nothing: with warmup={settings.warmup} of "
            f"steps={settings.steps} there is an architecture step at every {settings.every} weight steps after it "
            "(search.every). Leave it out, or let the warm-up be all of the steps."
        )


def _check_open_warmup(settings: SearchSettings) -> None:
    start = registry("start").chosen_by(settings.start)
    if not 1 <= settings.warmup <= settings.steps:
        raise InputError(
            f"search: warmup={settings.warmup} must be at least 1 and at most steps={settings.steps}: a {start} start "
            "takes the architecture from what the warm-up learns. search.start=level needs no warm-up."
        )
    if settings.sharing != "per_nblocks":
        raise InputError(
            f"search.start={start} with sharing={settings.sharing}: every block count takes its own factors from what "
            "the warm-up learns; use sharing=per_nblocks, or search.start=level."
        )


def _idle_where_weights_stand(settings: SearchSettings) -> list[str]:
    """What was chosen, by name or as an object, that acts only where weights move between architecture steps."""
    usual = {"hypergradient": "first_order", "stop": "none"}
    doors = {"hypergradient": "hypergradient", "stop": "guard"}
    chosen = {name: registry(kind).chosen_by(getattr(settings, name)) for name, kind in doors.items()}
    return [f"{name}={chosen[name]}" for name in usual if chosen[name] != usual[name]]
