"""Sections take types, defaults, names and meanings from the library, and give back what it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import pytest
from omegaconf import OmegaConf

from morenas.base.errors import InputError
from morenas.base.registry import registry
from morenas.base.settings import door, meanings, names_of, one_of
from morenas.finetune.config import Training
from morenas.finetune.settings import TrainingSettings
from morenas.models.weights import FrozenWeights
from morenas.run.composing import check_all_names
from morenas.run.config import Model, Task
from morenas.run.sections import choice, chosen, door_of, fill, own_settings, section
from morenas.search.config import ELSEWHERE, RELAXATION, TRAINING, Relaxation, Search, SearchRunConfig
from morenas.search.requests import BudgetSettings, SpaceSettings
from morenas.search.settings import SearchSettings
from morenas.tasks.spec import TaskSpec


@dataclass(frozen=True)
class Library:
    """Something of the library.

    Attributes:
        name: Has to be given.
        sizes: A tuple.
        shade: One of two.
        parts: Of the user's own names.
        relaxation: By name.
        render: By name, or none.
        call: For Python alone.
    """

    name: str
    sizes: tuple[int, ...] | None = None
    shade: str = one_of(("red", "blue"), "red")
    parts: Mapping[str, str] | None = None
    relaxation: Any = door("relaxation", "gumbel")
    render: Any = door("render", None)
    call: Callable[[], int] = int
    words: list[str] = field(default_factory=lambda: ["a"])


@dataclass
class Keys:
    """More.

    Attributes:
        share: On the command line alone.
    """

    share: float = 0.5


def test_a_section_has_types_defaults_names_and_meanings_of_the_library() -> None:
    made = section(Library, leave=["words"], keys=Keys)
    there = {one.name: one for one in fields(made)}
    assert list(there) == ["share", "name", "sizes", "shade", "parts", "relaxation", "render"]
    assert names_of(there["shade"]) == ("red", "blue") and "gumbel" in names_of(there["relaxation"])
    assert there["parts"].type is Any and there["render"].type == str | None
    means = {**meanings(Library), "share": "On the command line alone."}
    assert meanings(made) == {name: means[name] for name in there}
    typed = OmegaConf.structured(made)
    assert OmegaConf.missing_keys(typed) == {"name"} and typed.relaxation == "gumbel"
    for wrong in ({"sizes": ["x"]}, {"shade": ["red"]}, {"share": "half"}, {"call": 3}):
        with pytest.raises(Exception, match=r"could not be converted|Cannot convert|not in"):
            OmegaConf.merge(typed, wrong)


def test_what_was_set_becomes_the_librarys_dataclass() -> None:
    made = section(Library, only=["name", "sizes", "words"], keys=Keys)
    typed: Any = OmegaConf.merge(OmegaConf.structured(made), {"name": "a", "sizes": [1, 2], "words": ["b"]})
    filled = fill(Library, OmegaConf.to_object(typed), Keys(), shade="blue")
    assert filled == Library("a", (1, 2), "blue", words=["b"])


def test_of_several_sections_the_first_that_has_a_field_decides() -> None:
    first, second = section(Library, only=["sizes"])(sizes=[1]), section(Library, only=["sizes", "shade"])
    assert fill(Library, first, second(sizes=[2], shade="blue"), name="a") == Library("a", (1,), "blue")


def test_a_choice_is_a_name_or_an_object_made_with_its_own_settings() -> None:
    made = choice(SearchSettings, "hypergradient")
    assert (
        door_of(made) == ("name", "hypergradient") and made().name == "first_order" and chosen(made()) == "first_order"
    )
    neumann = registry("hypergradient").get("neumann")
    own = section(neumann, keys=made, own=True)(name="neumann", terms=7)
    assert own_settings(own)["terms"] == 7 and "name" not in own_settings(own)
    assert chosen(own) == neumann(terms=7)


LIBRARY: dict[type[Any], list[type[Any]]] = {
    SearchSettings: [Search, Relaxation],
    TrainingSettings: [Training],
    TaskSpec: [Task],
    FrozenWeights: [Model],
    SpaceSettings: [type(SearchRunConfig().space)],
    BudgetSettings: [type(SearchRunConfig().budget)],
}


@pytest.mark.parametrize("library", LIBRARY)
def test_every_setting_of_the_library_is_a_key_and_says_what_it_means(library: type[Any]) -> None:
    made = {one.name for one_section in LIBRARY[library] for one in fields(one_section)}
    elsewhere = {"seed", "device"} | (set(ELSEWHERE) - set(RELAXATION) if library is SearchSettings else set())
    assert {one.name for one in fields(library)} - elsewhere <= made
    for one_section in LIBRARY[library]:
        assert all(meanings(one_section).get(one.name) for one in fields(one_section))


def test_what_a_search_shares_with_the_fine_tune_is_set_for_both_at_once() -> None:
    known = {one.name for one in fields(Training)} | {"warmup_ratio"}
    assert set(TRAINING) - known == {"ramp"}  # the same as training.warmup_ratio


def test_a_value_that_the_library_refuses_is_refused() -> None:
    with pytest.raises(InputError, match=r"training.batch_size=0"):
        fill(TrainingSettings, Training(batch_size=0))


@pytest.mark.parametrize("written", ["[no, yes]", "[true, false]", "[1e3, a]", "[0, 1]", "[null, a]"])
@pytest.mark.parametrize("key", ["label_names", "choices", "text_columns"])
def test_a_list_of_names_is_not_respelled(key: str, written: str) -> None:
    """YAML makes truth values and numbers of some words, and OmegaConf would make other words of those."""
    task = OmegaConf.create("name: mine\ntext_columns: [text]\nmetrics: [accuracy]")
    made = OmegaConf.merge(OmegaConf.structured(Task), task, OmegaConf.create(f"{key}: {written}"))
    with pytest.raises(InputError, match=rf"task\.{key}: \w[\w.]* is no text.*quote it"):
        check_all_names(OmegaConf.to_object(made), "task")
