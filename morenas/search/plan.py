"""How a run is cut: settings of the search, and of the training of what it finds, from those of the command line."""

from __future__ import annotations

import math
from typing import Any

from morenas.base.errors import InputError
from morenas.base.registry import registry
from morenas.run.sections import chosen, fill
from morenas.search.config import SearchRunConfig
from morenas.search.length import RunLength
from morenas.search.settings import SearchSettings


def search_settings(config: SearchRunConfig, final_steps: int) -> SearchSettings:
    """How to search.

    Args:
        final_steps: Optimizer steps of the final fine-tune.
    Raises:
        InputError: If a value is out of range, or a setting would do nothing.
    """
    check_length(config)
    given, whole = config.search, run_length(config, final_steps)
    if given.steps is not None:
        return settings_of_steps(config, given.steps)
    return settings_of_steps(config, whole.search_steps(lambda steps: settings_of_steps(config, steps)))


def settings_of_steps(config: SearchRunConfig, steps: int) -> SearchSettings:
    """How to search in so many weight steps."""
    given, training = config.search, config.training
    return fill(
        SearchSettings,
        given,
        config.relaxation,
        training,
        steps=steps,
        warmup=warmup_steps(config, steps),
        learning_rate=training.learning_rate if given.learning_rate is None else given.learning_rate,
        ramp=training.warmup_ratio,
        decay=given.runs == 2,
        relaxation=chosen(config.relaxation),
        hypergradient=chosen(config.hypergradient),
        selection=chosen(config.selection),
        seed=config.seed,
    )


def warmup_steps(config: SearchRunConfig, steps: int) -> int:
    """Weight steps of the warm-up; at least one.

    Raises:
        InputError: If the fraction is out of range, or block counts that share factors are to start from a spectrum.
    """
    given, start = config.search.warmup, config.search.start
    if registry("start").get(start).open_warmup:
        if config.relaxation.sharing == "full":
            raise InputError(
                f"relaxation.sharing=full with search.start={start}: every block count takes its own factors from what "
                "the warm-up learns. Use relaxation.sharing=per_nblocks, or search.start=level."
            )
        share = 1.0 if given is None else given
        if not 0 < share <= 1:
            raise InputError(
                f"search.warmup={share}: with search.start={start} a fraction of the search's steps above 0 and at "
                "most 1; with 1, or null, the weights stand still while the architecture moves. search.start=level may "
                "go without a warm-up."
            )
        return max(1, min(round(share * steps), steps))
    share = 0.2 if given is None else given
    if not 0 <= share < 1:
        raise InputError(
            f"search.warmup={share}: with search.start={start} a fraction of the search's steps, at least 0 and below "
            "1; else no architecture step would be taken."
        )
    # Adapters start as zero and give the logits no gradient before the weights' first step.
    return max(1, min(round(share * steps), steps - 1))


def check_length(config: SearchRunConfig) -> None:
    """Refuse a run that is cut in a way that cannot be.

    Raises:
        InputError: If so.
    """
    given = config.search
    if given.runs not in (1, 2):
        raise InputError(f"search.runs={given.runs}: 1 or 2.")
    if not 0 < given.length < math.inf:
        raise InputError(f"search.length={given.length}: must be above 0, and finite.")
    if not 0 < given.share < 1:
        raise InputError(f"search.share={given.share}: must be above 0 and below 1; what is found takes the rest.")


def run_length(config: SearchRunConfig, finetune_steps: int) -> RunLength:
    """The run by its cost, where a fine-tune has so many optimizer steps."""
    return RunLength(config.search.length * finetune_steps, config.search.share)


def goes_on(config: SearchRunConfig) -> bool:
    """Whether the found adapter is trained on from where the search stands, and takes no fine-tune of its own."""
    return bool(config.search.runs == 1 and config.training.init == "inherit")


def too_short(config: SearchRunConfig, settings: SearchSettings, finetune_steps: int) -> str:
    """What to say where a search and the training of what it finds exceed the run's length; empty if they fit."""
    excess = run_length(config, finetune_steps).excess(settings)
    if config.search.steps is not None or not goes_on(config) or excess < 1:
        return ""
    return (
        f"search.length={config.search.length} of a fine-tune of {finetune_steps} steps is too short for a search and "
        f"the training of what it finds: the run may take {excess:.0f} passes more. Train longer (training.epochs), or "
        "set search.length higher."
    )


def training_of_found(config: SearchRunConfig, finetune_steps: int, searched: float) -> dict[str, Any]:
    """How the found adapter's training differs from a fine-tune: in one run it takes what the search has left of it.

    Args:
        searched: Passes that the search has taken.
    """
    if not goes_on(config):
        return {}
    whole = run_length(config, finetune_steps)
    # A search of a given number of steps stands beside the length: it takes nothing from what it finds.
    taken = searched if config.search.steps is None else whole.share * whole.passes
    return {"max_steps": whole.found_steps(taken), "warmup_ratio": 0.0}


def passes_in_all(config: SearchRunConfig, finetune_steps: int, searched: float) -> int:
    """What the search and the training of what it found take together, in forward and backward passes of a step.

    Args:
        searched: Passes that the search has taken.
    """
    trained: int = training_of_found(config, finetune_steps, searched).get("max_steps", finetune_steps)
    return round(searched + trained)
