"""A search and the training of what it finds are one run, or two; a LoRA may have as many passes as both."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tiny_runs import composed

from morenas.base.errors import InputError
from morenas.bilevel import Schedule
from morenas.finetune import stage
from morenas.search.config import SearchKeys, SearchRunConfig
from morenas.search.length import passes_beside
from morenas.search.phase import finetune_found, finetune_lora
from morenas.search.plan import search_settings, too_short
from morenas.space import Architecture
from morenas.space.architecture import ModuleShape

FINETUNE = 200  # steps
PASSES = SearchKeys().length * FINETUNE  # of the whole run
FOUND = Architecture("tiny", "cyclic", {"query": ModuleShape(2, 1, 4, 4)}, 0.1, search={"passes": 140.4})


def config(*words: str) -> SearchRunConfig:
    made = composed("search", ["+task=demo", *words])
    assert isinstance(made, SearchRunConfig)
    return made


def fitted(monkeypatch: pytest.MonkeyPatch, what: Any, *words: str) -> dict[str, Any]:
    """How the training of what was found, or of the LoRA beside it, differs from a fine-tune."""
    changes: dict[str, Any] = {}
    monkeypatch.setattr(stage, "fit", lambda *given, details=None, **changed: changes.update(changed))
    monkeypatch.setattr(stage, "final_steps", lambda run: FINETUNE)
    directory = SimpleNamespace(adapter=Path("adapter"), path=Path("run"))
    run = SimpleNamespace(directory=directory, targets=lambda *_: {"query": (4, 4)})
    inherited: tuple[dict[str, Any], ...] = ({}, {}) if what is finetune_found else ()
    what(cast(Any, run), config(*words), FOUND, *inherited)
    return changes


def test_the_search_takes_its_share_at_a_constant_rate_and_what_is_found_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = search_settings(config(), FINETUNE)
    share = 0.57 * (PASSES - passes_beside(settings))
    assert share - 1 < settings.steps <= share
    assert (settings.warmup, settings.decay) == (settings.steps, False)
    assert fitted(monkeypatch, finetune_found) == {"max_steps": round(PASSES - 140.4), "warmup_ratio": 0.0}


def test_length_and_share_cut_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("search.length=1", "search.share=0.4", "selection=budgeted", "search.arch_steps=2")
    assert search_settings(config(*words), FINETUNE).steps == 76  # of 200 less 2, 3 for the scores, 2.7 for LoRA
    assert fitted(monkeypatch, finetune_found, *words)["max_steps"] == 60  # as long as the search leaves
    given = ("search.length=1", "search.share=0.4", "search.steps=17")
    assert search_settings(config(*given), FINETUNE).steps == 17
    assert fitted(monkeypatch, finetune_found, *given)["max_steps"] == 120


@pytest.mark.parametrize(
    ("words", "steps", "says"),
    [
        ((), 200, False),
        ((), 8, True),
        (("search.length=0.05",), 200, True),
        (("search.length=0.05", "search.steps=17"), 200, False),
        (("search.length=0.05", "search.runs=2"), 200, False),
    ],
)
def test_a_length_too_short_for_the_search_is_said_to_be(words: tuple[str, ...], steps: int, says: bool) -> None:
    made = config(*words)
    said = too_short(made, search_settings(made, steps), steps)
    assert ("too short" in said and "search.length" in said) if says else not said


def test_in_two_runs_what_is_found_has_a_fine_tune_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert search_settings(config("search.runs=2"), FINETUNE).decay
    assert fitted(monkeypatch, finetune_found, "search.runs=2") == {}


def test_what_starts_afresh_has_nothing_to_go_on_from_and_a_fine_tune_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert fitted(monkeypatch, finetune_found, "training.init=fresh") == {}


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        ((), round(PASSES)),  # what the search took, and the rest
        (("search.runs=2",), 340),
        (("comparison.passes=finetune",), None),
    ],
)
def test_a_lora_has_as_many_passes_as_the_whole_run(
    words: tuple[str, ...], steps: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fitted(monkeypatch, finetune_lora, *words).get("max_steps") == steps


@pytest.mark.parametrize(
    "word",
    ["search.runs=3", "search.runs=0", "search.share=0", "search.share=1", "search.length=0", "search.length=inf"],
)
def test_a_run_that_cannot_be_cut_so_is_refused(word: str) -> None:
    with pytest.raises(InputError, match=rf"{word.split('=')[0]}="):
        search_settings(config(word), FINETUNE)


def test_a_rate_that_does_not_decay_stays_at_its_peak() -> None:
    constant, falling = (Schedule(50, 50, 1, ramp=0.1, restart=True, decay=decay) for decay in (False, True))
    rates = [constant.lower_factor(step) for step in range(50)]
    assert rates[:5] == [falling.lower_factor(step) for step in range(5)] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert set(rates[5:]) == {1.0}
    again = Schedule(50, 20, 1, ramp=0.1, restart=True, decay=False)
    assert [again.lower_factor(step) for step in (19, 20, 22, 49)] == [1.0, pytest.approx(1 / 3), 1.0, 1.0]
