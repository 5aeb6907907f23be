"""Values reach a config as they were typed."""

from __future__ import annotations

import json
import operator
from pathlib import Path

import pytest
from tiny_runs import CommandLine, composed, task_words

from morenas.base.errors import InputError
from morenas.run.composing import compose_words, register_schema, text_keys
from morenas.run.quoting import at_home, kept_as_text
from morenas.run.reading import read_record
from morenas.search.config import SearchRunConfig
from morenas.tasks.spec import TaskSpec

RESPELLED = ["no", "true", "False", "1e3", "007", "1_000", "nan", "inf", "+5", ".5", "1.0", "0x1F", "2024-01-01"]
FILES = ["+task=files", "task.data_dir=x", "task.text_columns=[text]", "model=local", "model.name_or_path=x"]
TEXTS = ["task.label_column", "task.folder", "task.hub_name", "model.attn_implementation", "tracking.wandb.group"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("task.data_dir=~/a b=c", ["/home/me/a b=c"]),
        ('task.data_dir="~/a"', ["/home/me/a"]),
        ("task.data_dir='~'", ["/home/me"]),
    ],
)
def test_home_is_known_wherever_a_value_begins_with_it(
    word: str, meant: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    register_schema("search", SearchRunConfig)
    composed_task = compose_words("search", ["+task=files", at_home(word)]).task
    assert [composed_task.data_dir] == meant
    assert at_home("task.data_dir=~/a,~/b") == 'task.data_dir="/home/me/a","/home/me/b"'
    for other in ("~task", "seed=1", "task.name=a~b"):
        assert at_home(other) == other


@pytest.mark.parametrize("first", range(0, len(RESPELLED), len(TEXTS)))
def test_a_text_is_what_was_typed(first: int) -> None:
    keys, typed = text_keys(SearchRunConfig), dict(zip(TEXTS, RESPELLED[first:], strict=False))
    config = composed("search", [*FILES, *(kept_as_text(f"{key}={value}", keys) for key, value in typed.items())])
    assert {key: operator.attrgetter(key)(config) for key in typed} == typed


def test_keys_that_take_a_text() -> None:
    keys = text_keys(SearchRunConfig)
    assert {*TEXTS} <= keys and not {"seed", "task.text_columns", "task.truncate", "task"} & keys


def test_other_words_stay_as_they_are() -> None:
    for word in ("seed=1", "task.folder=null", "task.folder=a b", 'task.folder="1"', "task=1", "~task.folder", "-m"):
        assert kept_as_text(word, {"task.folder"}) == word
    assert kept_as_text("+task.folder=1,b,true", {"task.folder"}) == '+task.folder="1",b,"true"'


def test_a_command_keeps_the_text_and_its_folder_is_called_so(
    command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        rows = [json.loads(line) for line in (tiny_task / f"{split}.jsonl").read_text().splitlines()]
        renamed = [json.dumps({"text": row["text"], "1e3": row["label"]}) for row in rows]
        (tmp_path / "data" / f"{split}.jsonl").write_text("\n".join(renamed))
    words = [*task_words(tmp_path / "data", tiny_model), "task.label_column=1e3", "hydra.run.dir=1e3", "method=head"]
    assert command("finetune", *words).status == 0
    assert read_record(tmp_path / "1e3").config["task"]["label_column"] == "1e3"


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("task.folder", "no"),
        ("task.hub_name", "007"),
        ("device", "1e3"),
        ("model.name_or_path", "0x1F"),
        ("tracking.wandb.group", "yes"),
    ],
)
def test_in_a_yaml_file_a_text_has_to_be_quoted(key: str, written: str, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    section, _, name = key.rpartition(".")
    folder = [*FILES, f"hydra.searchpath=[file://{tmp_path}]"]
    for said, fits in ((written, False), (f'"{written}"', True)):
        inside = f"{name}: {said}"
        for outer in reversed(section.split(".") if section else []):
            inside = f"{outer}: {{{inside}}}"
        (tmp_path / "experiment" / f"mine_{fits}.yaml").write_text(f"# @package _global_\n{inside}\n")
        words = [*(word for word in folder if not word.startswith(f"{key}=")), f"experiment=mine_{fits}"]
        if fits:
            composed("search", words)
        else:
            with pytest.raises(InputError, match=rf"{key}: .* is no text.*quote it: '{key}=\"no\"'"):
                composed("search", words)


def test_a_setting_of_what_is_chosen_by_name_is_a_text_too() -> None:
    words = ["+task=demo", "method=lora"]
    with pytest.raises(InputError, match=r"tracking.experiment: 5 is no text"):
        composed("search", ["+task=demo", "tracking=mlflow", "tracking.experiment=5"])
    assert composed("finetune", words).method.name == "lora"


def test_nothing_is_no_text_where_one_is_needed() -> None:
    with pytest.raises(InputError, match=r"task.label_column: null is no text"):
        composed("search", [*FILES, "task.label_column=null"])


@pytest.mark.parametrize("value", [7, True, 1e3])
def test_a_part_of_a_mix_and_a_script_are_told_alike(value: object) -> None:
    columns = ("instruction",)
    mix = {"a": {"folder": value}, "b": {}}
    with pytest.raises(InputError, match=r"task.mix.a.folder: .* is no text"):
        TaskSpec("mixed", columns, ("log_likelihood",), kind="choice", data_dir="x", mix=mix)
    with pytest.raises(InputError, match=r"task.label_column: .* is no text"):
        TaskSpec("own", ("text",), ("accuracy",), label_column=value, data_dir="x")  # type: ignore[arg-type]
