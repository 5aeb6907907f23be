"""``python -m morenas.export`` and its functions: what a run trained, in forms that others load."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plain_peft
import pytest
import torch
from huggingface_hub import ModelCard
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_adapters import linears, logits, more_config
from tiny_exports import difference, outputs
from tiny_models import Tiny, save_tiny, tiny_classifier
from tiny_runs import SEARCH_WORDS, CommandLine, read, run, task_words
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import morenas
from morenas.adapters import more_layers
from morenas.base.errors import InputError
from morenas.export.command import main
from morenas.models import load_pretrained
from morenas.space import Architecture, ModuleShape

ADAPTER = "adapter_model.safetensors"


def train(directory: Path, command: str, *words: str) -> Path:
    """A run, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"morenas.{command}", *words, f"hydra.run.dir={directory}"])
        patch.setattr("morenas.run.publish.write_report", lambda directory, results: None)
        assert run(command) == 0
    return directory


@pytest.fixture(scope="module")
def found(tiny_task: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search."""
    words = [*task_words(tiny_task, tiny_model), *SEARCH_WORDS, "budget.fraction=0.6"]
    short = ("training.max_steps", "training.learning_rate")
    kept = [word for word in words if not word.startswith(short)]
    words = [*kept, "training.max_steps=300", "training.learning_rate=2e-2"]  # until it has learned something
    return train(tmp_path_factory.mktemp("found") / "run", "search", *words)


def baseline(method: str, tiny_task: Path, model: Path, directory: Path) -> Path:
    """A finished fine-tune by another method."""
    words = [*task_words(tiny_task, model), f"method={method}"]
    kept = [word for word in words if not word.startswith(("training.max_steps", "training.evals"))]
    return train(directory, "finetune", *kept, "training.max_steps=4", "training.evals=1")


@pytest.fixture(scope="module")
def lora_run(tiny_task: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished fine-tune by method=lora."""
    return baseline("lora", tiny_task, tiny_model, tmp_path_factory.mktemp("lora") / "run")


def plain(exports: list[tuple[str, Path, Path]], tests: Path, folder: Path) -> list[Any]:
    """Accuracy and logits of exports ``(form, folder, base)`` in a process without morenas."""
    jobs = {"exports": [list(map(str, export)) for export in exports], "tests": str(tests), "out": str(folder / "out")}
    (folder / "jobs.json").write_text(json.dumps(jobs))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [sys.executable, "-P", plain_peft.__file__, str(folder / "jobs.json")]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(read(folder / "out"))


def measured(directory: Path) -> float:
    """Accuracy of a run on its test set."""
    return float(read(directory / "results.json")["methods"][0]["metrics"]["test"]["accuracy"])


def export(*words: object) -> None:
    main([str(word) for word in words])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one error of a refused command."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        export(*words)
    errors = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(errors) == 1 and errors[0].startswith("morenas: error: ")
    return errors[0]


def native(found: Path, tiny_model: Path) -> Any:
    return PeftModel.from_pretrained(load_pretrained(str(tiny_model), 2).model, found / "adapter").eval()


def test_without_morenas_every_export_has_the_run_s_metric_to_the_last_digit(
    found: Path, tiny_task: Path, tiny_model: Path, tmp_path: Path
) -> None:
    export(f"run={found}", "to=lora", f"out={tmp_path / 'lora'}")
    export(f"run={found}", "to=lora", f"out={tmp_path / 'auto'}", "uniform_rank=true", "max_rank=16")
    export(f"run={found}", "to=merged", f"out={tmp_path / 'merged'}")
    exports = [(form, tmp_path / form, tiny_model) for form in ("lora", "auto", "merged")]
    tests = tiny_task / "validation.jsonl"
    with pytest.MonkeyPatch.context() as patch:  # the native adapter, by the same program
        patch.setattr(plain_peft, "load", lambda form, folder, base: native(found, tiny_model))
        accuracy, expected = plain_peft.measure("lora", "", str(tiny_model), str(tests))
    assert accuracy == measured(found) > 0.6
    for theirs, computed in plain(exports, tests, tmp_path):
        assert theirs == accuracy
        assert difference(torch.tensor(computed), torch.tensor(expected)) <= 1e-5


@pytest.mark.parametrize("form", ["lora", "more", "merged"])
def test_every_form_gives_the_native_adapter_s_logits(found: Path, tiny_model: Path, tmp_path: Path, form: str) -> None:
    export(f"run={found}", f"to={form}", f"out={tmp_path / 'out'}")
    if form == "merged":
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    else:
        model = PeftModel.from_pretrained(load_pretrained(str(tiny_model), 2).model, tmp_path / "out")
    expected = logits(native(found, tiny_model))
    assert difference(logits(model), expected) <= 1e-5
    assert difference(expected, logits(load_pretrained(str(tiny_model), 2).model)) > 1e-2


def test_the_native_form_is_the_adapter_bit_for_bit(found: Path, tmp_path: Path) -> None:
    export(f"run={found}", "to=more", f"out={tmp_path / 'out'}")
    one, other = (load_file(folder / ADAPTER) for folder in (found / "adapter", tmp_path / "out"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert read(tmp_path / "out" / "architecture.json") == read(found / "architecture.json")


@pytest.mark.parametrize("form", ["lora", "more", "merged"])
def test_the_card_tells_what_it_is_and_where_it_is_from(
    found: Path, tiny_model: Path, tmp_path: Path, form: str
) -> None:
    export(f"run={found}", f"to={form}", f"out={tmp_path / 'out'}")
    text, results = (tmp_path / "out" / "README.md").read_text(), read(found / "results.json")
    data: Any = ModelCard(text).data
    row = results["methods"][0]
    assert data.base_model == tiny_model.name and data.to_dict()["library_name"] in ("peft", "transformers")
    assert results["command"] in text and f"{row['adapter_params']:,} adapter parameters" in text
    assert f"| test | accuracy | {row['metrics']['test']['accuracy']:.4f} |" in text
    assert "Licence of the base model: not stated in its files" in text
    for name, shape in Architecture.from_json(found / "architecture.json").modules.items():
        line = f"| `{name}` | {shape.in_features} | {shape.out_features} | {shape.nblocks} | {shape.blk_r} | "
        assert line in text
    assert "model-index" in text
    outside = text.replace(results["command"], "")
    assert str(tiny_model) not in outside


def test_the_card_tells_the_licence_that_the_base_s_card_names(found: Path, tiny_model: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_model, tmp_path / tiny_model.name)
    (base / "README.md").write_text("---\nlicense: mit\n---\n# tiny\n")
    export(f"run={found}", "to=lora", f"out={tmp_path / 'out'}", f"base={base}")
    card: Any = ModelCard((tmp_path / "out" / "README.md").read_text())
    assert card.data.license == "mit" and "Licence of the base model: mit" in card.text


def test_a_truncated_export_tells_its_error(found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"run={found}", "to=lora", f"out={tmp_path / 'out'}", "max_rank=1"]
    assert "above max_rank=1" in refused(capsys, *words) and not (tmp_path / "out").exists()
    export(*words, "truncate=true")
    assert "modules truncated, at most" in capsys.readouterr().out
    assert {read(tmp_path / "out" / "adapter_config.json")["r"]} == {1}
    text = (tmp_path / "out" / "README.md").read_text()
    assert "best approximation" in text and "before it was truncated" in text and "model-index" not in text


@pytest.mark.parametrize("method", ["lora", "adalora", "head", "full"])
def test_other_methods_merge_too(method: str, tiny_task: Path, tmp_path: Path) -> None:
    model = save_tiny("roberta", tmp_path / "model")  # its head is of several layers
    directory = baseline(method, tiny_task, model, tmp_path / "run")
    export(f"run={directory}", "to=merged", f"out={tmp_path / 'out'}")
    tests = str(tiny_task / "validation.jsonl")
    assert plain_peft.measure("merged", str(tmp_path / "out"), str(model), tests)[0] == measured(directory)


def test_a_lora_run_is_exported_as_the_lora_it_is(
    lora_run: Path, tiny_task: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(f"run={lora_run}", "to=lora", f"out={tmp_path / 'out'}")
    tests = str(tiny_task / "validation.jsonl")
    assert plain_peft.measure("lora", str(tmp_path / "out"), str(tiny_model), tests)[0] == measured(lora_run)
    assert "method=lora" in refused(capsys, f"run={lora_run}", "to=more", f"out={tmp_path / 'other'}")
    said = refused(capsys, f"run={lora_run}", "to=lora", f"out={tmp_path / 'other'}", "uniform_rank=true")
    assert "uniform_rank=True" in said and "method=more" in said


@pytest.mark.parametrize("method", ["head", "full"])
@pytest.mark.parametrize("form", ["lora", "more"])
def test_a_run_without_adapters_is_merged_alone(
    method: str, form: str, found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = shutil.copytree(found, tmp_path / "run")
    results = read(directory / "results.json")
    results["methods"][0]["name"] = method
    (directory / "results.json").write_text(json.dumps(results))
    said = refused(capsys, f"run={directory}", f"to={form}", f"out={tmp_path / 'out'}")
    assert f"method={method}" in said and "choose to=merged" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu=x"], "rnu: there is no such key (did you mean 'run'?)"),
        (["run=a", "run=b"], "run: is given twice"),
        (["run"], "run: give key=value"),
        (["to=lorra"], "to=lorra"),
        (["max_rank=many"], "max_rank=many"),
        (["uniform_rank=perhaps"], "uniform_rank=perhaps"),
        (["run=a"], "to, out: must be set"),
        ([], "run, to, out: must be set"),
    ],
    ids=" ".join,
)
def test_a_command_line_that_is_wrong(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(capsys, *words)


def test_a_refusal_needs_no_torch(tmp_path: Path) -> None:
    code = f"""
import sys
from morenas.export.command import main
try:
    main(["run={tmp_path}", "to=lora", "out=x"])
except SystemExit as stop:
    assert stop.code == 2
assert not {{"torch", "transformers", "peft"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "no run began there" in done.stderr, done.stderr


def test_help_works(capsys: pytest.CaptureFixture[str]) -> None:
    export("--help")
    assert "uniform_rank" in capsys.readouterr().out


def without(*parts: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        for part in parts:
            path = directory / part
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def spoil_weights(directory: Path) -> None:
    path = directory / "adapter" / ADAPTER
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("morenas_first"))
    tensors["base_model.model.nobody.morenas_first"] = tensors.pop(name).clone()
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without(".hydra"), "no run began there"),
        (
            without("results.json"),
            "not complete (results.json is missing); finish it: python -m morenas.search resume=",
        ),
        (without("adapter"), "its adapter is missing"),
        (without(f"adapter/{ADAPTER}"), f"{ADAPTER}: is missing"),
        (without("adapter/adapter_config.json"), "adapter_config.json"),
        (spoil_weights, "Extra: base_model.model.nobody.morenas_first"),
        (spoil_weights, "Missing: base_model.model.bert"),
        (lambda directory: (directory / "adapter" / ADAPTER).write_bytes(b"short"), "cannot be read as tensors"),
    ],
)
def test_a_run_that_is_not_whole(
    change: Callable[[Path], None], said: str, found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = shutil.copytree(found, tmp_path / "run")
    change(directory)
    assert said in refused(capsys, f"run={directory}", "to=lora", f"out={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


def test_a_directory_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = f"out={tmp_path / 'out'}"
    assert "no such directory" in refused(capsys, f"run={tmp_path / 'gone'}", "to=lora", out)
    assert "no run began there" in refused(capsys, f"run={tmp_path}", "to=lora", out)


def test_a_place_that_is_taken_is_left_alone(found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "mine.txt"):
        assert "there is something already" in refused(capsys, f"run={found}", "to=lora", f"out={place}")
    assert "cannot be written" in refused(capsys, f"run={found}", "to=lora", f"out={tmp_path / 'mine.txt' / 'x'}")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"] and (tmp_path / "mine.txt").read_text() == "mine"


def test_a_base_model_that_is_another_is_refused(
    found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_tiny("bert", tmp_path / "other", seed=1)
    said = refused(capsys, f"run={found}", "to=lora", f"out={tmp_path / 'out'}", f"base={other}")
    assert "another model" in said and "fingerprint" in said


def test_an_adapter_of_another_base_model_is_refused(found: Path, tiny_model: Path, tmp_path: Path) -> None:
    other = save_tiny("bert", tmp_path / "other", seed=1)
    with pytest.raises(InputError, match=f"belongs to the base model '{tiny_model}', and base='{other}'"):
        morenas.to_lora(found / "adapter", tmp_path / "out", base=str(other))
    moved = shutil.copytree(tiny_model, tmp_path / "moved" / tiny_model.name)
    morenas.to_lora(found / "adapter", tmp_path / "out", base=str(moved))
    roberta = save_tiny("roberta", tmp_path / "roberta" / tiny_model.name)
    with pytest.raises(InputError, match=r"does not fit Roberta|not those of this model"):
        morenas.to_lora(found / "adapter", tmp_path / "third", base=str(roberta))


@pytest.mark.parametrize("kind", ["choice", "generation"])
def test_a_run_of_a_language_model_is_exported_as_one(kind: str, found: Path, tmp_path: Path) -> None:
    tiny = Tiny("llama")
    base, directory = tiny.save(tmp_path / "base"), shutil.copytree(found, tmp_path / "run")
    pretrained = load_pretrained(str(base), 2, kind=kind)
    native = get_peft_model(pretrained.model, more_config(pretrained.model))
    native.save_pretrained(str(directory / "adapter"), save_embedding_layers=False)
    saved, results = (read(directory / name) for name in (".hydra/run.json", "results.json"))
    saved["config"]["task"]["kind"] = kind
    results["task_kind"] = kind
    results["model"] |= {"name": str(base), "fingerprint": pretrained.fingerprint}
    (directory / ".hydra" / "run.json").write_text(json.dumps(saved))
    (directory / "results.json").write_text(json.dumps(results))
    for form in ("lora", "merged"):
        export(f"run={directory}", f"to={form}", f"out={tmp_path / form}")
        assert "AutoModelForCausalLM" in (tmp_path / form / "README.md").read_text()
    expected = outputs(native, tiny)
    assert difference(outputs(AutoPeftModelForCausalLM.from_pretrained(tmp_path / "lora"), tiny), expected) <= 1e-5
    assert difference(outputs(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), tiny), expected) <= 1e-5


def architecture_of(model: Any, **shape: int) -> Architecture:
    shapes = {
        name: ModuleShape(**shape, in_features=module.in_features, out_features=module.out_features)
        for name, module in model.named_modules()
        if name in linears(model)
    }
    return Architecture("tiny", "cyclic", shapes, 0.1)


def test_more_to_lora_and_back_is_the_same_function(found: Path, tiny_model: Path, tmp_path: Path) -> None:
    morenas.to_lora(found / "adapter", tmp_path / "lora")
    errors = morenas.from_lora(tmp_path / "lora", found / "architecture.json", tmp_path / "more")
    assert max(errors.values()) < 1e-6
    again = PeftModel.from_pretrained(load_pretrained(str(tiny_model), 2).model, tmp_path / "more")
    assert difference(logits(again), logits(native(found, tiny_model))) <= 1e-5


def test_a_lora_is_projected_onto_an_architecture_with_its_error(
    lora_run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    found = architecture_of(tiny_classifier(), nblocks=4, blk_r=2)
    errors = morenas.from_lora(lora_run / "adapter", found, tmp_path / "more")
    assert errors.keys() == found.modules.keys() and all(0 < error < 1 for error in errors.values())
    model = PeftModel.from_pretrained(load_pretrained(str(tiny_model), 2).model, tmp_path / "more")
    theirs: Any = PeftModel.from_pretrained(load_pretrained(str(tiny_model), 2).model, lora_run / "adapter")
    for name, layer in more_layers(model).items():
        wanted = theirs.get_submodule(f"base_model.model.{name}").get_delta_weight("default")
        lost = float((wanted - layer.get_delta_weight("default")).norm() / wanted.norm())
        assert lost == pytest.approx(errors[name], rel=1e-4)
    ours, lora = (load_file(folder / ADAPTER) for folder in (tmp_path / "more", lora_run / "adapter"))
    head = "base_model.model.classifier.weight"
    assert torch.equal(ours[head], lora[head])


def test_modules_that_a_lora_leaves_alone_start_at_zero(tiny_model: Path, tmp_path: Path) -> None:
    model: Any = load_pretrained(str(tiny_model), 2).model
    lora = get_peft_model(model, LoraConfig(r=2, target_modules=["query"], init_lora_weights=False))
    lora.save_pretrained(str(tmp_path / "lora"), save_embedding_layers=False)
    errors = morenas.from_lora(
        tmp_path / "lora", architecture_of(tiny_classifier(), nblocks=1, blk_r=2), tmp_path / "o"
    )
    assert len(errors) == 2 and max(errors.values()) < 1e-6
    again = PeftModel.from_pretrained(load_pretrained(str(tiny_model), 2).model, tmp_path / "o")
    assert difference(logits(again), logits(lora)) <= 1e-5


def test_an_architecture_of_another_size_is_refused(lora_run: Path, tmp_path: Path) -> None:
    found = architecture_of(tiny_classifier(hidden_size=32), nblocks=4, blk_r=2)
    with pytest.raises(InputError, match="16 -> 16 in the LoRA and 32 -> 32 in the architecture"):
        morenas.from_lora(lora_run / "adapter", found, tmp_path / "more")
    with pytest.raises(InputError, match="type LORA, not MORENAS"):
        morenas.to_lora(lora_run / "adapter", tmp_path / "lora")


@pytest.mark.slow
def test_the_demo_has_the_same_metric_in_every_form(command: CommandLine, tmp_path: Path) -> None:
    from morenas.tasks.load import load_task
    from morenas.tasks.spec import TaskSpec

    done = command("search", "+task=demo", "compare=none", "tracking=local", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.status == 0, done.err
    saved = read(tmp_path / "run" / ".hydra" / "run.json")["config"]
    fields = {key: value for key, value in saved["task"].items() if value is not None}
    test = load_task(TaskSpec(**fields), saved["seed"]).tests["test"]
    test.select_columns([*saved["task"]["text_columns"], "label"]).to_json(tmp_path / "test.jsonl")
    base = Path(morenas.__file__).parent / "assets" / "demo"
    for form in ("lora", "merged"):
        export(f"run={tmp_path / 'run'}", f"to={form}", f"out={tmp_path / form}")
    exports = [(form, tmp_path / form, base) for form in ("lora", "merged")]
    theirs = plain(exports, tmp_path / "test.jsonl", tmp_path)
    assert [accuracy for accuracy, _ in theirs] == [measured(tmp_path / "run")] * 2
