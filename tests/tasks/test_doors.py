"""Sources, renderers and metrics of one's own, and the settings that choose them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_folder import hub_folder
from omegaconf import OmegaConf
from tiny_models import tiny_causal, tiny_tokenizer
from tiny_runs import CommandLine, read, record_words, task_words

import morenas
from morenas.base.errors import InputError
from morenas.base.settings import meanings
from morenas.tasks.load import load_task
from morenas.tasks.metrics import compute_metrics, fits
from morenas.tasks.sources.raw import Raw, Table
from morenas.tasks.spec import TaskSpec

Register = Callable[[str, str, Any], None]


@fits("classification")
def within_top_two(logits: Any, labels: Any) -> float:
    """Share of the examples whose class is among the two likeliest."""
    return float(np.mean([label in row.argsort()[-2:] for row, label in zip(logits, labels, strict=True)]))


@fits("generation")
def shared_words(texts: Sequence[str], answers: Sequence[str]) -> float:
    """Mean share of the answer's words that a text holds."""
    pairs = zip(texts, answers, strict=True)
    return float(np.mean([len({*text.split()} & {*answer.split()}) / len(answer.split()) for text, answer in pairs]))


def read_colours(spec: TaskSpec) -> Raw:
    """A source that makes its rows, and tells what it was given."""
    rows = [{"text": f"colour {number}", "label": number % 3} for number in range(60)]
    return Raw(Table("colours", rows[10:]), {"test": Table("colours test", rows[:10])}, {"data_dir": spec.data_dir})


def render_riddle(row: Mapping[str, Any]) -> dict[str, str]:
    return {"instruction": row["riddle"], "input": "", "output": f"it is {row['is']}", "answer": row["is"]}


def task(**given: Any) -> TaskSpec:
    return TaskSpec(**{"name": "mine", "text_columns": ("text",), "metrics": ("accuracy",), "source": "demo", **given})


def test_a_metric_is_chosen_by_name_and_counts_in_checkpoints_and_results(
    command: CommandLine, doors: Register, tiny_task: Path, tiny_model: Path, tmp_path: Path
) -> None:
    doors("metric", "top2", within_top_two)
    words = [*task_words(tiny_task, tiny_model, tmp_path / "run"), "method=lora", "training.max_steps=4"]
    done = command("finetune", *words, "task.metrics=[accuracy,top2]", "task.select_metric=top2")
    assert done.status == 0, done.err
    metrics = read(tmp_path / "run" / "results.json")["methods"][0]["metrics"]
    assert metrics["test"].keys() == metrics["select"].keys() == {"accuracy", "top2"}
    assert metrics["test"]["top2"] == 1.0


def test_checkpoints_are_chosen_by_a_metric_that_is_no_metric_of_the_test(
    command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path
) -> None:
    words = [*task_words(tiny_task, tiny_model, tmp_path / "run"), "method=lora", "training.max_steps=2"]
    done = command("finetune", *words, "task.metrics=[accuracy]", "task.select_metric=f1")
    assert done.status == 0, done.err
    metrics = read(tmp_path / "run" / "results.json")["methods"][0]["metrics"]
    assert metrics["test"].keys() == {"accuracy"} and metrics["select"].keys() == {"accuracy", "f1"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"metrics": ("top3",)}, r"task.metrics: 'top3' is no metric of a classification.* \(did you mean 'top2'\?\)"),
        ({"metrics": ("top2",), "kind": "regression"}, "'top2' is no metric of a regression task.*pearson, spearman"),
        ({"metrics": ("accuracy",), "select_metric": "shared"}, "task.select_metric: 'shared' is no metric of a class"),
        ({"metrics": ("vague",)}, "'vague' does not say which kinds of task it is for; put @fits"),
        ({"metrics": ("no.such:metric",)}, "metric=no.such:metric: cannot be imported"),
        ({"source": "sauce"}, r"task.source=sauce: there is no such source \(did you mean"),
        ({"render": "riddel"}, r"task.render=riddel: there is no such render \(did you mean 'riddle'\?\)"),
    ],
)
def test_a_name_that_nothing_has_or_that_does_not_fit_is_refused(
    doors: Register, given: dict[str, Any], said: str
) -> None:
    doors("metric", "top2", within_top_two)
    doors("metric", "shared", shared_words)
    doors("metric", "vague", lambda logits, labels: 0.0)
    doors("source", "sources", read_colours)
    doors("render", "riddle", render_riddle)
    with pytest.raises(InputError, match=said):
        task(**given)


def test_a_metric_must_give_a_number(doors: Register) -> None:
    doors("metric", "top2", fits("classification")(lambda logits, labels: logits))
    with pytest.raises(InputError, match="metric top2: gave ndarray in place of one number"):
        compute_metrics(("top2",), "classification", np.eye(2), np.arange(2))


def test_a_metric_given_as_a_function_goes_by_its_place() -> None:
    spec = task(metrics=[within_top_two], select_metric=within_top_two)
    assert spec.metrics == (spec.select_metric,) == (f"{__name__}:within_top_two",)
    (found,) = compute_metrics(spec.metrics, spec.kind, np.eye(3), np.array([0, 1, 1])).values()
    assert found == pytest.approx(within_top_two(np.eye(3), np.array([0, 1, 1])))


def test_a_metric_of_generated_text_shares_the_generation(doors: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    doors("metric", "shared", shared_words)
    made: list[int] = []

    def generate(model: Any, prompts: Sequence[Any], *_: Any) -> list[str]:
        made.append(len(prompts))
        return ["it is 7 or so"] * len(prompts)

    monkeypatch.setattr("morenas.finetune.language.generate", generate)
    records = [{"instruction": "how many", "answer": answer} for answer in ("7", "8")]
    tokenizer: Any = tiny_tokenizer("llama")
    tokenizer.pad_token = tokenizer.eos_token
    metrics = ("shared", "generated_accuracy")
    found = morenas.score_records(tiny_causal(), tokenizer, records, metrics, answer="number", prompt="plain")
    assert found == {"shared": 0.5, "generated_accuracy": 0.5} and made == [2]


def test_a_metric_of_generated_text_works_in_a_run(
    command: CommandLine, doors: Register, records: Path, llama: Path, tmp_path: Path
) -> None:
    doors("metric", "shared", shared_words)
    words = record_words(records, llama, tmp_path / "run", "instructions")
    given = ["task.metrics=[log_likelihood,shared]", "method=lora", "training.max_steps=2", "training.evals=1"]
    done = command("finetune", *words, *given)
    assert done.status == 0, done.err
    metrics = read(tmp_path / "run" / "results.json")["methods"][0]["metrics"]
    assert metrics["test"].keys() == {"log_likelihood", "shared"} and metrics["select"].keys() == {"log_likelihood"}


@pytest.mark.parametrize("by", ["name", "object"])
def test_a_source_is_chosen_by_name_or_given_itself(doors: Register, by: str) -> None:
    doors("source", "colours", read_colours)
    found = load_task(task(source="colours" if by == "name" else read_colours, data_dir="anywhere"), seed=0)
    assert found.label_names == ("0", "1", "2") and len(found.tests["test"]) == 10
    assert found.provenance["data_dir"] == "anywhere"  # a source of one's own reads what it likes there


def test_a_source_must_give_tables(doors: Register) -> None:
    doors("source", "colours", lambda spec: [])
    with pytest.raises(InputError, match="gave list in place of"):
        load_task(task(source="colours"), seed=0)


@pytest.mark.parametrize("by", ["name", "object"])
def test_a_renderer_is_chosen_by_name_or_given_itself(
    doors: Register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    doors("render", "riddle", render_riddle)
    rows = [{"riddle": f"what is {number}", "is": ("odd", "even")[number % 2]} for number in range(40)]
    path = hub_folder(tmp_path / "hub", {"train": rows[10:], "test": rows[:10]}, monkeypatch)
    given: dict[str, Any] = {"text_columns": ("instruction", "input"), "kind": "choice", "source": "hub"}
    found = load_task(task(**given, hub_path=str(path), render="riddle" if by == "name" else render_riddle), seed=0)
    assert found.search_train[0]["output"].startswith("it is") and len(found.tests["test"]) == 10
    assert {row["instruction"]: row["answer"] for row in found.tests["test"]}["what is 3"] == "even"


def test_lists_of_a_config_become_tuples() -> None:
    spec = task(text_columns=["a", "b"], metrics=["accuracy"], label_names=["x", "y"])
    assert (spec.text_columns, spec.metrics, spec.label_names) == (("a", "b"), ("accuracy",), ("x", "y"))
    assert spec == task(text_columns=("a", "b"), metrics=("accuracy",), label_names=("x", "y"))


def test_every_field_says_what_it_means() -> None:
    assert [field.name for field in fields(TaskSpec)] == list(meanings(TaskSpec))


def test_a_task_is_made_of_a_schema_of_its_own_fields() -> None:
    given = {"name": "mine", "text_columns": ["a"], "metrics": ["accuracy"], "source": "demo", "test_files": {"t": "x"}}
    made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TaskSpec), given))
    assert made == task(text_columns=("a",), test_files={"t": "x"})


def test_a_task_is_checked_without_torch() -> None:
    code = (
        "import sys\nfrom morenas.tasks import TaskSpec\n"
        "TaskSpec('demo', ('premise',), ('accuracy', 'f1'), source='demo').hub_need()\n"
        "sys.exit(bool({'torch', 'datasets', 'transformers', 'sklearn', 'scipy', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0
