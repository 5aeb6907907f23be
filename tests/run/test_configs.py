"""Every YAML there is composes, and says how it is run."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from grids import rows_in_turn
from omegaconf import OmegaConf
from tiny_runs import COMMANDS, composed

from morenas.base.errors import InputError
from morenas.run.composing import config_directory
from morenas.run.needs import task_spec
from morenas.run.plugins import choices
from morenas.search.config import SearchRunConfig
from morenas.search.plan import search_settings
from morenas.tasks.metrics import check_metrics

CONFIGS = Path(config_directory())
FILES = sorted(path.relative_to(CONFIGS).with_suffix("") for path in CONFIGS.rglob("*.yaml"))
BASES = [path for path in FILES if path.name.startswith("_")]
CHOICES = [path for path in FILES if len(path.parts) > 1 and path.parts[0] != "hydra" and path not in BASES]
SEARCH_ONLY = {"space", "budget", "relaxation", "hypergradient", "selection", "experiment"}
REQUIRED = {
    "task/files": ["task.text_columns=[text]", "task.data_dir=data"],
    "task/hub": ["task.text_columns=[text]", "task.hub_path=owner/name"],
    "model/local": ["model.name_or_path=folder"],
    "budget/custom": ["budget.params=1000"],
}


PAPER = {
    "commonsense": {
        "boolq",
        "piqa",
        "siqa",
        "hellaswag",
        "winogrande",
        "arc_easy",
        "arc_challenge",
        "openbookqa",
        "mixed",
    },
    "math": {"gsm8k", "aqua", "mawps", "svamp", "addsub", "multiarith", "singleeq", "mathqa", "mixed"},
}


@cache
def searched(task: str) -> SearchRunConfig:
    """The config of a search on a task; some of arithmetic have files alone."""
    config = composed("search", [f"+task={task}", *(["task.data_dir=data"] if task.startswith("math/") else [])])
    assert isinstance(config, SearchRunConfig)
    return config


def rounds(command: str) -> list[tuple[Path, ...]]:
    """Choices of different groups that can stand beside each other, each choice at least once.

    Searches on tasks of language models are composed one by one further below.
    """
    left_out = {"search": ("method", *(f"task/{group}" for group in PAPER)), "finetune": tuple(SEARCH_ONLY)}[command]
    groups: dict[str, list[Path]] = {}
    for choice in CHOICES:
        if not str(choice).startswith(left_out):
            groups.setdefault(choice.parts[0], []).append(choice)
    experiments = [(experiment,) for experiment in groups.pop("experiment", [])]  # they make the choices themselves
    return rows_in_turn(groups.values()) + experiments


def named(value: str | tuple[Path, ...]) -> str:
    return value if isinstance(value, str) else " ".join(map(str, value))


@pytest.mark.parametrize(("command", "chosen"), [(name, each) for name in COMMANDS for each in rounds(name)], ids=named)
def test_every_choice_composes(command: str, chosen: tuple[Path, ...]) -> None:
    words = []
    for choice in chosen:
        group, name = choice.parts[0], "/".join(choice.parts[1:])
        words += [f"+task={name}" if group == "task" else f"{group}={name}", *REQUIRED.get(str(choice), [])]
    assert composed(command, words)


@pytest.mark.parametrize("base", BASES, ids=str)
def test_what_tasks_share_is_no_task_itself(base: Path) -> None:
    assert not {name for name in choices("task", CONFIGS, None) if "_base" in name}
    with pytest.raises(InputError, match="No task was chosen"):
        composed("search", [f"+task={base.relative_to('task')}"])


@pytest.mark.parametrize("path", [path for path in FILES if path not in BASES], ids=str)
def test_the_first_line_says_how_to_run_it(path: Path) -> None:
    lines = (CONFIGS / path).with_suffix(".yaml").read_text().splitlines()
    if path.parts[0] == "hydra":
        return
    first = next(line for line in lines if not line.startswith("# @package"))
    assert re.match(r"# python -m morenas\.(search|finetune) ", first), first


@pytest.mark.parametrize("words", [["+task=demo", "model=minilm"], ["model=minilm", "+task=demo"]])
def test_a_model_that_is_named_wins_over_the_demos_own(words: list[str]) -> None:
    config = composed("search", words)
    assert isinstance(config, SearchRunConfig) and config.model.name_or_path.endswith("MiniLM-L6-v2")
    assert searched("demo").model.name_or_path == "demo"


def test_the_demo_is_compared_with_lora() -> None:
    from morenas.search.phase import compares_with_lora

    assert compares_with_lora(searched("demo")) and not compares_with_lora(searched("glue/rte"))


def test_the_nine_glue_tasks_are_there_with_published_settings() -> None:
    tasks = {path.name for path in CHOICES if path.parts[:2] == ("task", "glue")}
    assert tasks == {"cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli"}
    rte = searched("glue/rte")
    assert (rte.training.learning_rate, rte.training.batch_size, rte.training.epochs) == (5.4e-4, 16, 20)
    assert (rte.training.weight_decay, rte.training.warmup_ratio, rte.training.scheduler) == (1e-3, 0.06, "cosine")
    assert rte.task.test_splits == {"test": "validation"} and rte.task.metrics == ["accuracy"]
    assert rte.model.name_or_path.endswith("roberta-base")
    assert (rte.budget.lora_rank, rte.budget.fraction) == (32, 0.05)


@pytest.mark.parametrize("group", PAPER)
def test_the_tasks_of_language_models_are_there_and_make_whole_tasks(group: str) -> None:
    assert {path.name for path in CHOICES if path.parts[:2] == ("task", group)} == PAPER[group]
    for name in PAPER[group]:
        config = searched(f"{group}/{name}")
        spec = task_spec(config)
        check_metrics(spec.metrics, spec.kind, spec.select_metric)
        assert spec.causal and config.model.name_or_path == "meta-llama/Llama-3.2-1B"
        assert (spec.select_metric or spec.metrics[0]) == ("accuracy" if group == "commonsense" else "log_likelihood")
        assert all(part.train_split or spec.mix for part in spec.parts().values())
        assert {part.answer for part in spec.parts().values()} <= {"choice", "number", "letter"}


def test_the_commonsense_mix_holds_the_eight_tasks_as_they_are_alone() -> None:
    mixed = searched("commonsense/mixed")
    parts = task_spec(mixed).parts()
    assert set(parts) == PAPER["commonsense"] - {"mixed"}
    for name, part in parts.items():
        config = searched(f"commonsense/{name}")
        assert replace(task_spec(config), name=name, max_length=part.max_length) == part
        assert config.training == mixed.training


def test_parts_of_a_mix_are_changed_and_left_out_on_the_command_line() -> None:
    words = ["~task.mix.aqua", "+task.mix.mawps.train_file=x.jsonl", "+task.mix.gsm8k.train_split=null"]
    config = composed("search", ["+task=math/mixed", *words])
    assert isinstance(config, SearchRunConfig)
    parts = task_spec(config).parts()
    assert set(parts) == {"gsm8k", "mawps", "svamp"}
    assert (parts["mawps"].train_file, parts["gsm8k"].train_split) == ("x.jsonl", None)


def test_a_hub_task_names_its_test_splits_on_the_command_line() -> None:
    words = ["+task=hub", *REQUIRED["task/hub"], "task.test_splits={held: test}"]
    config = composed("search", words)
    assert isinstance(config, SearchRunConfig) and config.task.test_splits == {"held": "test"}


def test_a_config_of_a_users_own_is_found(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text(
        "# @package _global_\ntask: {name: mine, text_columns: [a], metrics: [accuracy], data_dir: d}\n"
    )
    config = composed("search", ["+task=mine", f"hydra.searchpath=[file://{tmp_path}]"])
    assert isinstance(config, SearchRunConfig) and config.task.name == "mine"


def test_schema_and_yaml_agree_on_what_there_is() -> None:
    typed = OmegaConf.structured(SearchRunConfig)
    for group in SEARCH_ONLY - {"experiment"}:
        assert group in typed


@pytest.mark.parametrize(
    ("given", "warmup"),
    [
        ([], 10),
        (["search.warmup=1"], 10),
        (["search.warmup=0.01"], 1),
        (["search.warmup=0.34"], 3),
        (["search.start=level"], 2),
        (["search.start=level", "search.warmup=0"], 1),
        (["search.start=level", "search.warmup=0.99"], 9),
    ],
)
def test_the_warm_up_is_a_share_of_the_steps_that_fits_the_start(given: list[str], warmup: int) -> None:
    config = composed("search", ["+task=demo", "search.steps=10", *given])
    assert isinstance(config, SearchRunConfig)
    settings = search_settings(config, final_steps=100)
    assert (settings.steps, settings.warmup) == (10, warmup)


def test_by_default_a_search_takes_most_of_the_final_steps_and_all_are_warm_up() -> None:
    settings = search_settings(searched("demo"), final_steps=200)
    assert 110 < settings.steps < 135 and (settings.warmup, settings.start) == (settings.steps, "spectral")
    assert (settings.sharing, settings.selection, settings.measurements) == ("per_nblocks", "race", None)
