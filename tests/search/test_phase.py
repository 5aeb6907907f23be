"""``python -m morenas.search``, whole, in this process."""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file
from tiny_models import WORDS, save_tiny, tiny_classifier
from tiny_runs import SEARCH_WORDS, CommandLine, read, task_words
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from morenas.base.documents import validate
from morenas.base.registry import registry
from morenas.finetune import stage
from morenas.finetune.evaluate import ClassifierScorer
from morenas.finetune.methods import ShapedMore
from morenas.run import session
from morenas.search.phase import finetune_found
from morenas.space import Architecture, ModuleShape
from morenas.tasks.load import Task


@pytest.fixture
def words(tiny_task: Path, tiny_model: Path, tmp_path: Path) -> list[str]:
    return [*task_words(tiny_task, tiny_model, tmp_path / "run"), *SEARCH_WORDS]


def test_leaves_what_the_output_contract_names_and_prints_phases_table_and_places(
    reporting_command: CommandLine, words: list[str], tmp_path: Path
) -> None:
    done = reporting_command("search", *words, "search.warmup=0.2", "compare=lora")
    assert done.status == 0, done.err
    directory = tmp_path / "run"
    architecture, results = read(directory / "architecture.json"), read(directory / "results.json")
    validate(architecture, "architecture", "architecture.json")
    validate(results, "results", "results.json")
    found, lora = results["methods"]
    assert architecture["params"] == found["adapter_params"] <= results["budget"]["params"]
    assert lora["adapter_params"] <= results["budget"]["params"]
    assert found["metrics"].keys() == {"test", "select"}
    assert results["value"] == found["metrics"]["select"]["accuracy"]
    assert [phase["name"] for phase in results["phases"]] == [
        "prepare",
        "search",
        "finetune",
        "evaluate",
        "compare_lora",
    ]
    assert all(phase["seconds"] > 0 and phase["peak_memory_bytes"] > 0 for phase in results["phases"])
    lines = [json.loads(line) for line in (directory / "search" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 11))
    every = {"lower_loss", "lower_lr", "expected_params", "entropy", "temperature"}
    for line in lines:
        assert {key.removeprefix("search/") for key in line} - {"step", "upper_loss"} == every
    assert sum("search/upper_loss" in line for line in lines) == 4  # after a warm-up of 2, every 2
    trajectory = np.load(directory / "search" / "trajectory.npz")
    np.testing.assert_allclose(trajectory["probs"].sum(-1), 1, rtol=1e-5)
    assert trajectory["probs"].shape[1:] == (len(trajectory["groups"]), len(trajectory["choices"]))
    assert set(architecture["modules"]) <= set(trajectory["groups"].tolist())
    assert results["data"]["fingerprint"] == architecture["search"]["data_fingerprint"]
    said = architecture["search"]
    assert (said["start"], said["selection"], said["steps"], said["warmup"]) == ("spectral", "race", 10, 2)
    assert (said["measurements"], said["steps_taken"], said["stopped"]) == (None, 10, "")
    assert {path.name for path in (directory / "adapter").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert not (directory / "checkpoints").exists()
    assert {path.name for path in (directory / ".hydra").iterdir()} >= {"config.yaml", "overrides.yaml"}
    assert not re.findall(r"""(?:src|href)=["']https?:""", (directory / "report.html").read_text())
    # It prints phases, table and places.
    assert "at most" in done.out and "search: done" in done.out and "finetune: done" in done.out
    for said in ("MoRe, found", "LoRA", "accuracy", "of the", "adapter", str(tmp_path / "run" / "results.json")):
        assert said in done.out
    assert "Traceback" not in done.err


def test_the_same_command_gives_the_same_run_whose_saved_adapter_and_architecture_are_what_was_measured(
    command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        torch.manual_seed(hash(name) % 1000)
        assert command("search", *task_words(tiny_task, tiny_model, tmp_path / name), *SEARCH_WORDS).status == 0
    one, two = (read(tmp_path / name / "architecture.json") for name in ("one", "two"))
    assert one == two
    weights = [load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("one", "two")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    check_saved_adapter(tmp_path / "one", tiny_task, tiny_model)
    found = tmp_path / "one" / "architecture.json"
    again = command("finetune", *task_words(tiny_task, tiny_model, tmp_path / "again"), f"architecture={found}")
    assert again.status == 0, again.err
    results = read(tmp_path / "again" / "results.json")
    assert results["methods"][0]["adapter_params"] == Architecture.from_json(found).num_parameters()


def check_saved_adapter(directory: Path, tiny_task: Path, tiny_model: Path) -> None:
    """It gives the predictions that were measured."""
    base = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2)
    model = PeftModel.from_pretrained(base, directory / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = [json.loads(line) for line in (tiny_task / "validation.jsonl").read_text().splitlines()]
    batch = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
    with torch.no_grad():
        predicted = model(**batch).logits.argmax(-1)
    accuracy = float((predicted == torch.tensor([row["label"] for row in rows])).float().mean())
    assert accuracy == pytest.approx(read(directory / "results.json")["methods"][0]["metrics"]["test"]["accuracy"])


@pytest.mark.parametrize(
    "extra",
    [
        ["selection=budgeted", "search.start=level", "relaxation=gumbel", "training.gradient_accumulation=2"],
        ["selection=argmax", "search.warmup=0.5", "relaxation=dirichlet", "training.max_grad_norm=0"],
        [
            "selection=perturbation",
            "search.measurements=5",
            "search.start=level",
            "relaxation.sharing=full",
            "hypergradient=single_level",
            "budget=custom",
            "budget.params=900",
        ],
        [
            "selection=playoff",
            "search.playoff=2",
            "search.playoff_steps=2",
            "search.start=level",
            "search.stop=curvature",
            "search.stop_every=1",
            "space.granularity=layer",
            "training.init=fresh",
        ],
    ],
    ids=lambda extra: extra[0],
)
def test_every_choice_runs_and_keeps_the_budget(
    command: CommandLine, words: list[str], extra: list[str], tmp_path: Path
) -> None:
    words = [word for word in words if not word.startswith("budget")] if "budget=custom" in extra else words
    done = command("search", *words, *extra)
    assert done.status == 0, done.err
    results = read(tmp_path / "run" / "results.json")
    assert results["methods"][0]["adapter_params"] <= results["budget"]["params"]


def test_a_search_that_a_guard_stopped_says_so_and_goes_on_to_the_fine_tune(
    command: CommandLine, words: list[str], tmp_path: Path
) -> None:
    stop = ["search.stop=entropy", "search.stop_entropy=9", "search.warmup=0.5"]
    done = command("search", *words, *stop)
    assert done.status == 0, done.err
    assert "The search stopped after 6 of 10 steps: the entropy is" in " ".join(done.out.split())
    results = read(tmp_path / "run" / "results.json")
    assert results["methods"][0]["adapter_params"] <= results["budget"]["params"]
    said = read(tmp_path / "run" / "architecture.json")["search"]
    assert (said["stop"], said["steps_taken"]) == ("entropy", 6) and "below 9" in said["stopped"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "search" / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("search/stopped") for line in lines] == [None] * 5 + [1.0]


def test_where_nothing_is_worth_an_adapter_the_head_is_trained_and_no_lora_compared(
    command: CommandLine, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry("selection")._targets, "argmax", lambda evidence: [0] * len(evidence.costs))
    done = command("search", *words, "selection=argmax", "compare=lora")
    assert done.status == 0, done.err
    assert "chose no adapter" in done.out
    (row,) = read(tmp_path / "run" / "results.json")["methods"]
    assert (row["name"], row["adapter_params"]) == ("head", 0)
    assert read(tmp_path / "run" / "architecture.json")["modules"] == {}


LATENCY = """
from dataclasses import dataclass

from morenas.base.registry import register


@dataclass(frozen=True)
class Latency:
    call: int = 5

    def __call__(self, layer, choice):
        return choice.blk_r and self.call + choice.nblocks * choice.blk_r


register("cost", "latency", Latency)
"""


@pytest.mark.parametrize("given", [["budget=custom", "budget.value=30"], ["budget.lora_rank=8", "budget.fraction=0.3"]])
def test_a_budget_may_be_counted_in_a_cost_that_a_plugin_brings(
    command: CommandLine, words: list[str], given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_costs.py").write_text(LATENCY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_costs", raising=False)
    monkeypatch.setattr(registry("cost"), "_targets", dict(registry("cost")._targets))
    kept = [word for word in words if not word.startswith("budget")]
    done = command("search", *kept, *given, "plugins=[my_costs]", "budget.cost=latency", "budget.call=6")
    assert done.status == 0, done.err
    architecture, results = read(tmp_path / "run" / "architecture.json"), read(tmp_path / "run" / "results.json")
    budget = architecture["budget"]
    assert budget["cost"] == {"name": "latency", "call": 6} and budget == results["budget"] and "params" not in budget
    shapes = architecture["modules"].values()
    assert 0 < sum(6 + shape["nblocks"] * shape["blk_r"] for shape in shapes) <= budget["value"]
    assert architecture["params"] == results["methods"][0]["adapter_params"]
    assert f"for at most {budget['value']} of latency" in " ".join(done.out.split())
    wrong = command("search", *kept, *given, "plugins=[my_costs]", "budget.cost=latence")
    assert wrong.status == 2 and "did you mean 'latency'" in wrong.err


@pytest.mark.parametrize(
    ("given", "endings"),
    [
        (["space.target_modules=auto"], {"query", "value"}),
        (["space.target_modules=[query,key]", "space.exclude_modules='.*layer.1.*'"], {"query", "key"}),
    ],
)
def test_adapters_go_to_the_modules_that_were_asked_for_and_their_lora_is_the_budget(
    command: CommandLine, words: list[str], given: list[str], endings: set[str], tmp_path: Path
) -> None:
    kept = [word for word in words if not word.startswith(("budget.fraction", "model.name_or_path"))]
    model = f"model.name_or_path={save_tiny('bert', tmp_path / 'two-layers')}"
    done = command("search", *kept, model, "budget.fraction=0.75", *given)
    assert done.status == 0, done.err
    architecture, results = read(tmp_path / "run" / "architecture.json"), read(tmp_path / "run" / "results.json")
    assert {name.split(".")[-1] for name in architecture["modules"]} <= endings
    layers = 1 if len(given) > 1 else 2
    assert results["budget"]["params"] == 0.75 * 4 * (16 + 16) * len(endings) * layers


@pytest.mark.parametrize("init", ["inherit", "fresh"])
def test_the_final_finetune_inherits_what_the_search_trained_or_starts_afresh(
    init: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[ShapedMore] = []
    monkeypatch.setattr(stage, "fit", lambda run, method, *_, **__: fitted.append(method))
    monkeypatch.setattr(stage, "final_steps", lambda run: 100)
    run = SimpleNamespace(directory=SimpleNamespace(adapter=Path("adapter")))
    config = SimpleNamespace(training=SimpleNamespace(init=init), search=SimpleNamespace(runs=2))
    architecture = Architecture("tiny", "cyclic", {"query": ModuleShape(2, 1, 4, 4)}, 0.1, search={"passes": 70.0})
    factors, head = {"query": (torch.ones(2, 1, 2), torch.ones(2, 2, 1))}, {"classifier.weight": torch.ones(2, 4)}
    finetune_found(cast(Any, run), cast(Any, config), architecture, factors, head)
    inherits = init == "inherit"
    assert (fitted[0].factors, fitted[0].head_state) == ((factors, head) if inherits else ({}, {}))


def test_a_test_set_is_read_once_a_method_after_its_training(
    command: CommandLine, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    load = session.load_task

    def told(event: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def outer(*given: Any) -> Any:
            result = call(*given)
            events.append(event)
            return result

        return outer

    class Tests(dict[str, Dataset]):
        """Test sets that tell when one is read."""

        def __getitem__(self, name: str) -> Dataset:
            raise AssertionError(f"{name} is read by name")

        def values(self) -> Any:
            raise AssertionError("the test sets are read")

        def items(self) -> Any:
            events.append("read")
            return super().items()

    def loaded(*given: Any) -> Task:
        task = load(*given)
        return replace(task, tests=Tests(task.tests))

    monkeypatch.setattr(session, "load_task", loaded)
    monkeypatch.setattr(stage, "finetune", told("trained", stage.finetune))
    monkeypatch.setattr(stage, "save_adapter", told("saved", stage.save_adapter))
    monkeypatch.setattr(ClassifierScorer, "__call__", told("scored", ClassifierScorer.__call__))
    assert command("search", *words, "compare=lora").status == 0
    assert re.fullmatch("((scored )+trained read scored saved ){2}", "".join(f"{event} " for event in events))


def test_a_decoder_without_a_pad_token_is_searched_under_a_fraction_of_the_model(
    command: CommandLine, tiny_task: Path, tmp_path: Path
) -> None:
    model = save_tiny("gpt2", tmp_path / "gpt2")
    words = [*task_words(tiny_task, model, tmp_path / "run"), *SEARCH_WORDS]
    kept = [word for word in words if not word.startswith("budget")]
    done = command("search", *kept, "budget=custom", "budget.fraction=0.1")
    assert done.status == 0, done.err
    assert "has no pad token" in done.out
    results = read(tmp_path / "run" / "results.json")
    parameters = sum(p.numel() for p in tiny_classifier("gpt2").base_model.parameters())
    assert results["model"]["parameters"] == parameters  # the head not counted
    assert results["budget"]["params"] == int(0.1 * parameters)
    (row,) = results["methods"]
    assert 0 < row["params_fraction"] == row["adapter_params"] / parameters <= 0.1


def test_the_demo_runs_whole_and_brings_its_lora(command: CommandLine, tmp_path: Path) -> None:
    few = ["training.max_steps=2", "training.evals=1", "search.steps=2", "task.max_examples=100", "tracking=local"]
    done = command("search", "+task=demo", *few, "device=cpu", "threads=1", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.status == 0, done.err
    results = read(tmp_path / "run" / "results.json")
    assert [row["name"] for row in results["methods"]] == ["more", "lora"]
    assert results["data"]["source"] == "demo" and results["data"]["sizes"]["test"] == 1000


def test_regression_is_searched_too(command: CommandLine, tiny_model: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    for split, count in (("train", 120), ("test", 30)):
        texts = [" ".join(rng.choices(WORDS, k=8)) for _ in range(count)]
        lines = (json.dumps({"text": text, "label": text.count("cat") + 0.5}) for text in texts)
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    words = [*task_words(tmp_path, tiny_model, tmp_path / "run"), *SEARCH_WORDS]
    done = command("search", *words, "task.kind=regression", "task.metrics=[pearson,spearman]")
    assert done.status == 0, done.err
    assert read(tmp_path / "run" / "results.json")["methods"][0]["metrics"]["test"].keys() == {"pearson", "spearman"}


@pytest.mark.realdata
@pytest.mark.parametrize("model", ["all-MiniLM-L6-v2-fp16", "stories260K", "babyllama-tok105"])
def test_real_weights_and_real_data_go_through(
    command: CommandLine, real_data: Path, real_models: Path, tmp_path: Path, model: str
) -> None:
    words = ["+task=glue/rte", f"task.data_dir={real_data / 'glue'}", "task.max_examples=80", "task.max_length=32"]
    if not (real_models / model).is_dir():
        pytest.skip(f"no real model {model}")
    words += ["model=local", f"model.name_or_path={real_models / model}", "search.steps=4", "training.max_steps=3"]
    done = command("search", *words, "tracking=local", "device=cpu", "threads=1", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.status == 0, done.err
    results = read(tmp_path / "run" / "results.json")
    assert 0 < results["methods"][0]["adapter_params"] <= results["budget"]["params"]
    assert results["data"]["sizes"]["test"] == 277


def test_a_comparison_that_could_not_be_attached_is_refused_before_the_search(
    command: CommandLine, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morenas.finetune.attach.misplaced", lambda *_: "it adapts something else")
    monkeypatch.setattr("morenas.search.phase.run_search", lambda *_: pytest.fail("the search began"))
    done = command("search", *words, "compare=lora")
    assert done.status == 2 and "Method lora: PEFT does not put its adapters onto the targets" in done.err
