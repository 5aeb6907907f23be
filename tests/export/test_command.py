"""``python -m morenas.export``: what a run trained, in forms that others load."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import plain_peft
import pytest
import torch
from forked import Forked
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_adapters import logits, more_config
from tiny_exports import ADAPTER, baseline, difference, export, measured, native, outputs, plain, refused
from tiny_models import Tiny, save_tiny
from tiny_runs import CommandLine, read
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import morenas
from morenas.base.errors import InputError
from morenas.export.base import PART
from morenas.export.command import ADAPTER_FILES, FORMS, ExportConfig, write
from morenas.export.command import export as run_export
from morenas.models import load_pretrained
from morenas.run.reading import FinishedRun


def test_without_morenas_every_export_has_the_run_s_metric_to_the_last_digit(
    forked: Forked, found: Path, tiny_task: Path, tiny_model: Path, tmp_path: Path
) -> None:
    export(f"run={found}", "to=lora", f"out={tmp_path / 'lora'}")
    export(f"run={found}", "to=lora", f"out={tmp_path / 'auto'}", "for=peft", "max_rank=16")
    export(f"run={found}", "to=merged", f"out={tmp_path / 'merged'}")
    exports = [(form, tmp_path / form, tiny_model) for form in ("lora", "auto", "merged")]
    tests = tiny_task / "validation.jsonl"
    with pytest.MonkeyPatch.context() as patch:  # the native adapter, by the same program
        patch.setattr(plain_peft, "load", lambda form, folder, base: native(found, tiny_model))
        accuracy, expected = plain_peft.measure("lora", "", str(tiny_model), str(tests))
    assert accuracy == measured(found) > 0.6
    for theirs, computed in plain(forked, exports, tests, tmp_path):
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
    said = refused(capsys, f"run={lora_run}", "to=lora", f"out={tmp_path / 'other'}", "max_rank=4")
    assert "max_rank=4" in said and "method=more" in said
    said = refused(capsys, f"run={lora_run}", "to=merged", f"out={tmp_path / 'other'}", "for=peft")
    assert "for=peft: goes with to=lora alone" in said


@pytest.mark.parametrize("method", ["rslora", "equal_lora method.params=600"])
def test_a_lora_run_of_another_scale_or_of_mixed_ranks_is_rewritten_for_servers(
    method: str, tiny_task: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *settings = method.split()
    directory = baseline(name, tiny_task, tiny_model, tmp_path / "run", *settings)
    tests = str(tiny_task / "validation.jsonl")
    export(f"run={directory}", "to=lora", f"out={tmp_path / 'servers'}")
    export(f"run={directory}", "to=lora", f"out={tmp_path / 'own'}", "for=peft")
    assert "vLLM and llama.cpp do not read the trained head (classifier)" in capsys.readouterr().out
    config, own = (read(tmp_path / folder / "adapter_config.json") for folder in ("servers", "own"))
    assert config["r"] == config["lora_alpha"] and not config["rank_pattern"] and not config["use_rslora"]
    assert own["use_rslora"] or own["rank_pattern"]
    for folder in ("servers", "own"):
        assert plain_peft.measure("lora", str(tmp_path / folder), str(tiny_model), tests)[0] == measured(directory)


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
        (["uniform_rank=true"], "uniform_rank: is no key any more: one rank for all modules is what to=lora writes"),
        (["for=vllm"], "for=vllm: choose from servers, peft"),
        (["for=peft", "for=peft"], "for: is given twice"),
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
from morenas.export.command import COMMAND
from morenas.run.words import run_words
try:
    run_words(COMMAND, ["run={tmp_path}", "to=lora", "out=x"])
except SystemExit as stop:
    assert stop.code == 2
assert not {{"torch", "transformers", "peft"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "no run began there" in done.stderr, done.stderr


def test_help_works(capsys: pytest.CaptureFixture[str]) -> None:
    export("--help")
    assert "    for " in capsys.readouterr().out


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


@pytest.mark.slow
def test_the_demo_has_the_same_metric_in_every_form(command: CommandLine, forked: Forked, tmp_path: Path) -> None:
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
    theirs = plain(forked, exports, tmp_path / "test.jsonl", tmp_path)
    assert [accuracy for accuracy, _ in theirs] == [measured(tmp_path / "run")] * 2


TAKEN = ["", " ", ".", "..", "/", "{here}", "{here}/..", "{here}/file", "{here}/full", "{here}/link"]


@pytest.mark.parametrize("out", TAKEN)
def test_a_folder_that_an_export_cannot_become_is_refused_before_the_run_is_read(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "full" / "x").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="out="):
        run_export(ExportConfig(run=str(tmp_path / "no-run"), to="lora", out=out.format(here=tmp_path)))


def test_an_export_copies_the_files_that_it_knows_and_nothing_that_links_lead_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morenas.export.base.load_run_base", lambda *_: SimpleNamespace(model=None))
    monkeypatch.setattr("morenas.export.forms.is_causal", lambda model: False)
    monkeypatch.setattr("morenas.export.forms.unread", lambda folder: ())
    adapter, out, secret = tmp_path / "run" / "adapter", tmp_path / "out", tmp_path / "secret"
    adapter.mkdir(parents=True)
    out.mkdir()
    secret.write_text("of mine")
    LoraConfig(r=2, target_modules=["query"]).save_pretrained(str(adapter))
    for name in (ADAPTER_FILES[1], "notes.txt"):
        (adapter / name).write_text(name)
    (adapter / "more").symlink_to(secret)
    run = FinishedRun(tmp_path / "run", {"methods": [{"name": "lora"}]}, {})
    config = ExportConfig(run=str(run.path), to="lora", out=str(out))
    write(run, config, out)
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        name: (adapter / name).read_text() for name in ADAPTER_FILES
    }
    (adapter / ADAPTER_FILES[1]).unlink()
    (adapter / ADAPTER_FILES[1]).symlink_to(secret)
    with pytest.raises(InputError, match=r"adapter_model\.safetensors: is a link"):
        write(run, config, out)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [*ADAPTER_FILES, "adapter_model.bin", PART, "config.json", "model.safetensors"])
def test_no_form_reads_what_a_link_of_the_run_leads_to(
    name: str, form: str, found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = Path(shutil.copytree(found, tmp_path / "run"))
    link = directory / "adapter" / name
    secret = link.rename(tmp_path / "secret") if link.exists() else Path(__file__)
    link.symlink_to(secret)
    said = refused(capsys, f"run={directory}", f"to={form}", f"out={tmp_path / 'out'}")
    assert f"{link}: is a link" in said and not (tmp_path / "out").exists()
