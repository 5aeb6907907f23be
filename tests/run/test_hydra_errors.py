"""What Hydra says, in its own words, is told in ours."""

from __future__ import annotations

import re
import shlex

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tiny_runs import COMMANDS, composed

from morenas.run.composing import compose_words
from morenas.run.hydra_errors import (
    AMBIGUOUS,
    MESSAGES,
    NO_CHOICE,
    NO_OVERRIDE,
    UNREAD,
    UNSET,
    Message,
    explain,
    no_such_key,
)
from morenas.run.launch import prepare

SAID: dict[Message, list[str]] = {
    NO_CHOICE: ["+task=demo", "model=roberta"],
    NO_OVERRIDE: ["task=demo"],
    AMBIGUOUS: ["+task=files", "task.data_dir=a,b"],
    UNREAD: ["task.data_dir=a=b"],
}
"""Words that make Hydra say a message."""


def said(words: list[str]) -> Exception:
    prepare("search", COMMANDS["search"].schema, words)
    with pytest.raises((HydraException, OmegaConfBaseException)) as caught:
        compose_words("search", words)
    return caught.value


@pytest.mark.parametrize("message", SAID, ids=lambda message: message.sample)
def test_hydra_still_says_what_is_looked_for(message: Message) -> None:
    text = str(said(SAID[message]))
    assert message.sample in text and message.search(text)


def test_omegaconf_still_says_what_is_looked_for() -> None:
    config = OmegaConf.create({"task": {"hub_path": None, "name": "${task.hub_path}"}})
    typed = OmegaConf.structured({"task": COMMANDS["search"].schema().task})
    with pytest.raises(OmegaConfBaseException) as caught:
        OmegaConf.to_object(OmegaConf.merge(typed, config))
    assert UNSET.sample in str(caught.value)
    assert UNSET.search(str(caught.value))


def test_every_message_is_tried() -> None:
    assert {*SAID, UNSET} == set(MESSAGES)
    assert all(message.search(message.sample) for message in MESSAGES)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["+task=demo", "model=roberta"], "model=roberta: there is no such choice (did you mean 'roberta-base'?)"),
        (["+task/glue=rtee"], "task/glue=rtee: there is no such choice (did you mean 'glue/rte'?)"),
        (["task=demo"], "task: nothing is chosen yet. To append to your default list use +task=demo"),
        (["spase.ranks=[1]"], "spase.ranks: there is no such key (did you mean 'space.ranks'?)"),
        (["search.every=often"], "search.every: Value 'often' of type 'str' could not be converted to Integer"),
        (["space.ranks=[a]"], "space.ranks[0]: Value 'a' of type 'str' could not be converted to Integer"),
    ],
)
def test_an_error_is_one_line_with_the_whole_key(words: list[str], told: str) -> None:
    known = ["task", "space.ranks", "search.every"]
    line = explain(said(words), known, words, choices=lambda group: ["roberta-base", "glue/rte"])
    assert line.startswith(told) and "\n" not in line


def test_a_wrong_key_of_a_section_is_told_with_its_neighbours() -> None:
    known = ["training.learning_rate", "training.epochs", "seed"]
    assert no_such_key("training.lerning_rate", known).endswith("(did you mean 'training.learning_rate'?).")
    assert no_such_key("training.x", known).endswith("; training has epochs, learning_rate.")
    assert no_such_key("training.x", known, "training=fast").startswith(
        "training.x: there is no such key with training="
    )
    assert no_such_key("sed", known).endswith("(did you mean 'seed'?).")


def test_a_key_that_another_one_needs_is_named() -> None:
    with pytest.raises(ValueError, match=r"task.hub_path: must be set, for example task.hub_path=<value>"):
        composed("search", ["+task=hub", "task.text_columns=[text]"])


FOLDERS = ["a=b", "it's", "a,b", "a#b", "a(b", "[x", "a&b", 'say "a"', "end\\", 'a\\"b', "$x", "a b=c"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_value_that_cannot_be_read_is_shown_quoted_so_that_it_can(folder: str) -> None:
    word = f"task.data_dir={folder}"
    told = explain(said(["+task=files", word]), ["task.data_dir"]) if not readable(word) else f": {word}"
    quoted = re.search(r"""'task\.data_dir="(?:[^']|'"'"')*'""", told)
    retyped = shlex.split(quoted[0] if quoted else shlex.quote(word))[0]
    assert compose_words("search", ["+task=files", retyped]).task.data_dir == folder


def readable(word: str) -> bool:
    prepare("search", COMMANDS["search"].schema, [word])
    try:
        compose_words("search", ["+task=files", word])
    except HydraException:
        return False
    return True


def test_a_word_that_a_blank_cut_off_says_how_to_keep_it() -> None:
    assert explain(said(["task.data_dir=/a", "b"]), []).startswith("b: give key=value; a value with a blank")
