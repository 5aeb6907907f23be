"""Whole runs of language models: choices and free text, searched, fine-tuned, measured and exported."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from grids import in_turn
from tiny_exports import export
from tiny_models import CAUSAL, save_tiny_causal
from tiny_runs import SEARCH_WORDS, CommandLine, read, record_words, run, write_records
from transformers import AutoModelForCausalLM, AutoTokenizer

from morenas.base.documents import validate
from morenas.base.registry import registry
from morenas.finetune.language import LanguageScorer
from morenas.space import Architecture

SEARCH = [*SEARCH_WORDS, "search.steps=4"]


@pytest.fixture
def words(records: Path, llama: Path, tmp_path: Path) -> list[str]:
    return record_words(records, llama, tmp_path / "run")


def results(directory: Path) -> Any:
    found = read(directory / "results.json")
    validate(found, "results", "results.json")
    return found


def test_a_choice_is_searched_fine_tuned_and_compared(
    reporting_command: CommandLine, words: list[str], tmp_path: Path
) -> None:
    done = reporting_command("search", *words, *SEARCH, "compare=lora")
    assert done.status == 0, done.err
    found = results(tmp_path / "run")
    validate(read(tmp_path / "run" / "architecture.json"), "architecture", "architecture.json")
    assert (found["task"], found["task_kind"], found["metric"]) == ("commonsense/boolq", "choice", "accuracy")
    assert [row["name"] for row in found["methods"]] == ["more", "lora"]
    for row in found["methods"]:
        assert row["head_params"] == 0 < row["adapter_params"] <= found["budget"]["params"]
        assert row["metrics"]["test"].keys() == {"accuracy", "generated_accuracy"}
        assert row["metrics"]["select"].keys() == {"accuracy"}
    assert found["value"] == found["methods"][0]["metrics"]["select"]["accuracy"]
    assert all(phase["memory_over_model_bytes"] >= 0 for phase in found["phases"])
    assert (tmp_path / "run" / "report.html").exists()


def test_free_text_is_chosen_by_its_likelihood_and_tested_by_what_is_generated(
    command: CommandLine, records: Path, llama: Path, tmp_path: Path
) -> None:
    words = record_words(records, llama, tmp_path / "run", "instructions")
    done = command("search", *words, *SEARCH, "task.metrics=[log_likelihood,generated_accuracy]")
    assert done.status == 0, done.err
    found = results(tmp_path / "run")
    assert (found["task_kind"], found["metric"]) == ("generation", "log_likelihood")
    (row,) = found["methods"]
    assert row["metrics"]["test"].keys() == {"log_likelihood", "generated_accuracy"}
    assert row["metrics"]["select"].keys() == {"log_likelihood"}
    assert found["value"] == row["metrics"]["select"]["log_likelihood"] < 0


def test_checkpoints_are_chosen_by_what_is_generated_where_that_is_asked_for_if_positions_are_scarce_too(
    command: CommandLine, records: Path, tmp_path: Path
) -> None:
    model = save_tiny_causal(tmp_path / "short", "gpt2", n_positions=20)
    words = record_words(records, model, tmp_path / "run")
    changes = ["task.max_new_tokens=14", "task.max_length=20", "task.truncate=true"]
    kept = [word for word in words if not word.startswith(("task.max_new_tokens", "task.max_length"))]
    done = command("finetune", *kept, *changes, "method=lora", "task.select_metric=generated_accuracy")
    assert done.status == 0, done.err
    found = results(tmp_path / "run")
    assert found["methods"][0]["metrics"]["select"].keys() == {"accuracy", "generated_accuracy"}
    assert found["value"] == found["methods"][0]["metrics"]["select"]["generated_accuracy"]


SEARCHED = ["gpt2", "gemma", "gpt_neox"]
"""Families searched by the command: Conv1D, tied embeddings, fused projections. llama is in most tests here."""


@pytest.mark.parametrize("family", SEARCHED)
def test_a_family_is_searched(command: CommandLine, records: Path, tmp_path: Path, family: str) -> None:
    model = save_tiny_causal(tmp_path / family, family, num_hidden_layers=1)
    done = command("search", *record_words(records, model, tmp_path / "run"), *SEARCH)
    assert done.status == 0, done.err
    assert results(tmp_path / "run")["methods"][0]["adapter_params"] > 0


@in_turn(
    method=["lora", "dora", "adalora", "gralora", "boft"],
    family=[family for family in CAUSAL if family not in (*SEARCHED, "qwen2")],
)
def test_every_baseline_is_measured_in_the_same_harness(
    command: CommandLine, records: Path, tmp_path: Path, method: str, family: str
) -> None:
    model = save_tiny_causal(tmp_path / family, family, num_hidden_layers=1)
    done = command("finetune", *record_words(records, model, tmp_path / "run"), f"method={method}")
    assert done.status == 0, done.err
    (row,) = results(tmp_path / "run")["methods"]
    assert (row["name"], row["steps"], row["head_params"]) == (method, 4, 0)
    assert row["metrics"].keys() == {"test", "select"} and row["adapter_params"] > 0


def test_a_model_trained_whole_is_saved_as_one_that_generates_fast(
    command: CommandLine, records: Path, tmp_path: Path
) -> None:
    model = save_tiny_causal(tmp_path / "tied", "llama", tie_word_embeddings=True)
    done = command("finetune", *record_words(records, model, tmp_path / "run"), "method=full")
    assert done.status == 0, done.err
    assert read(tmp_path / "run" / "adapter" / "config.json").get("use_cache", True)
    (row,) = results(tmp_path / "run")["methods"]
    assert (row["name"], row["steps"], row["head_params"]) == ("full", 4, 0)
    assert row["metrics"].keys() == {"test", "select"}
    assert row["adapter_params"] == AutoModelForCausalLM.from_pretrained(model).num_parameters()


def test_a_finetune_repeats_the_found_architecture(
    command: CommandLine, trained: tuple[Path, Path], records: Path, tmp_path: Path
) -> None:
    directory, base = trained
    found = directory / "architecture.json"
    done = command("finetune", *record_words(records, base, tmp_path / "again"), f"architecture={found}")
    assert done.status == 0, done.err
    assert results(tmp_path / "again")["methods"][0]["adapter_params"] == Architecture.from_json(found).num_parameters()


def test_where_nothing_is_worth_an_adapter_there_is_nothing_to_train(
    command: CommandLine, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry("selection")._targets, "argmax", lambda evidence: [0] * len(evidence.costs))
    done = command("search", *words, *SEARCH, "selection=argmax")
    assert done.status == 1 and "Traceback" not in done.err
    assert "chose no adapter" in done.err and "space.ranks" in done.err


def test_parts_of_a_mix_are_tested_one_by_one_by_their_own_rules_and_their_mean_comes_first(
    command: CommandLine, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("colors", "tints"):
        write_records(tmp_path / part, seed=len(part))
    asked: list[tuple[str, int]] = []
    score = LanguageScorer.__call__

    def told(self: LanguageScorer, *given: Any) -> dict[str, float]:
        asked.append((",".join(self.metrics), self.max_new_tokens))
        return score(self, *given)

    monkeypatch.setattr(LanguageScorer, "__call__", told)
    words, parts = record_words(tmp_path, llama, tmp_path / "run"), ["colors: {folder: colors}"]
    parts.append("tints: {folder: tints, max_new_tokens: 2}")
    done = command("finetune", *words, "method=lora", "training.evals=1", f"task.mix={{{', '.join(parts)}}}")
    assert done.status == 0, done.err
    found = results(tmp_path / "run")
    metrics = found["methods"][0]["metrics"]
    assert list(metrics) == ["mean", "colors", "tints", "select"] and found["split"] == "mean"
    for name, mean in metrics["mean"].items():
        assert mean == (metrics["colors"][name] + metrics["tints"][name]) / 2
    both = "accuracy,generated_accuracy"
    assert asked == [("accuracy", 4), (both, 4), (both, 2)]
    assert list(found["data"]["parts"]) == ["colors", "tints"]


@pytest.fixture(scope="module")
def trained(records: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished search that has learned something, and its base model."""
    folder = tmp_path_factory.mktemp("trained")
    base = save_tiny_causal(folder / "base", "llama")
    words = [word for word in record_words(records, base, folder / "run") if "max_steps" not in word]
    with pytest.MonkeyPatch.context() as patch:
        more = ["training.max_steps=150", "budget.fraction=0.6"]
        patch.setattr(sys, "argv", ["morenas.search", *words, *SEARCH, *more])
        patch.setattr("morenas.run.publish.write_report", lambda directory, results: None)
        assert run("search") == 0
    return folder / "run", base


@torch.no_grad()
def by_hand(model: Any, base: Path, records: Path) -> dict[str, float]:
    """Both accuracies of a language model, one record at a time, by transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = [json.loads(line) for line in (records / "test.jsonl").read_text().splitlines()]
    right, generated = 0, 0
    for row in rows:
        prompt = tokenizer(row["instruction"] + "\n").input_ids
        scores = {}
        for choice in ("blue", "red"):
            answer = [*tokenizer(f"it is {choice}").input_ids, tokenizer.eos_token_id]
            logs = model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            scores[choice] = sum(float(logs[len(prompt) + at - 1, token]) for at, token in enumerate(answer))
        right += max(scores, key=scores.__getitem__) == row["answer"]
        whole = model.generate(input_ids=torch.tensor([prompt]), max_new_tokens=4, do_sample=False, pad_token_id=3)
        said = str(tokenizer.decode(whole[0, len(prompt) :], skip_special_tokens=True)).split()
        generated += next((word for word in said if word in ("blue", "red")), None) == row["answer"]
    return {"accuracy": right / len(rows), "generated_accuracy": generated / len(rows)}


def load_lora(folder: Path, base: Path) -> Any:
    from peft import AutoPeftModelForCausalLM

    return AutoPeftModelForCausalLM.from_pretrained(folder)


def load_more(folder: Path, base: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)


def load_merged(folder: Path, base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize(
    ("form", "load"),
    [("lora", load_lora), ("more", load_more), ("merged", load_merged)],
    ids=["lora", "more", "merged"],
)
def test_every_export_of_a_trained_run_has_its_metrics(
    trained: tuple[Path, Path], records: Path, tmp_path: Path, form: str, load: Callable[[Path, Path], Any]
) -> None:
    directory, base = trained
    export(f"run={directory}", f"to={form}", f"out={tmp_path / form}")
    measured = results(directory)["methods"][0]["metrics"]["test"]
    assert by_hand(load(tmp_path / form, base).eval(), base, records) == measured
    assert measured["accuracy"] > 0.6 and measured["generated_accuracy"] > 0.2
