"""Code in files that look like something else: tables, templates, cards, data sets, configurations. None of it runs."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hostile import LOADING, Evil, refuses
from run_documents import RESULTS
from test_code import runs_code
from tiny_models import tiny_tokenizer
from tiny_runs import composed

import morenas
from morenas.base.errors import InputError
from morenas.export.base import OLD_WEIGHTS, read_tensors
from morenas.export.card import base_licence
from morenas.export.vocabulary import tokenizer_for
from morenas.models import load_pretrained
from morenas.tasks.prompts import prompt_texts
from morenas.tasks.sources.files import read_files
from morenas.tasks.sources.hub import read_hub
from morenas.tasks.sources.tables import read_table
from morenas.tasks.spec import TaskSpec
from morenas.tracking.report import write_report

CODE = "from pathlib import Path\nPath({!r}).touch()\nclass Evil: pass\n"


@pytest.mark.parametrize("ending", [".pkl", ".pickle", ".npy", ".npz", ".pt", ".joblib", ".py", ".yaml", ".arrow", ""])
def test_a_file_of_another_ending_is_no_data(ending: str, mark: Path, tmp_path: Path) -> None:
    path = tmp_path / f"train{ending}"
    path.write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(InputError, match="its name must end in one of"):
        read_table(path)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["arrow.py_extension_type", "pandas.index", "datasets.features.features.Array2D"])
def test_no_type_of_a_parquet_column_runs(name: str, mark: Path, tmp_path: Path) -> None:
    """pyarrow once unpickled what the metadata of a column held."""
    extension = {"ARROW:extension:name": name, "ARROW:extension:metadata": pickle.dumps(Evil(mark))}
    field = pyarrow.field("text", pyarrow.string(), metadata=extension)
    schema = pyarrow.schema([field], metadata={"pandas": pickle.dumps(Evil(mark)), "huggingface": "{}"})
    pyarrow.parquet.write_table(pyarrow.table([["a"]], schema=schema), tmp_path / "train.parquet")
    assert not runs_code(lambda: read_table(tmp_path / "train.parquet"), mark)


@pytest.mark.parametrize("name", ["adapter_model.bin", "pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_no_pickle_among_tensors_of_others_runs(name: str, mark: Path, tmp_path: Path) -> None:
    for content in ({"a": Evil(mark)}, Evil(mark)):
        torch.save(content, tmp_path / name)
        with pytest.raises(InputError, match="cannot be read as tensors"):
            read_tensors(tmp_path / name)
        assert not runs_code(lambda: morenas.from_published(tmp_path / name, "demo", tmp_path / "out"), mark)
    (tmp_path / name).write_bytes(pickle.dumps(Evil(mark)))
    assert not runs_code(lambda: read_tensors(tmp_path / name), mark)


@pytest.mark.parametrize("form", [morenas.to_lora, morenas.to_merged])
def test_no_pickle_of_an_adapter_runs(form: Callable[..., object], mark: Path, tmp_path: Path) -> None:
    config = {"peft_type": "MORE", "base_model_name_or_path": "demo", "nblocks": 2, "blk_r": 2, "target_modules": []}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    torch.save({"a": Evil(mark)}, tmp_path / OLD_WEIGHTS)
    assert refuses(lambda: form(tmp_path, tmp_path / "out"), LOADING) and not mark.exists()


def test_no_pickle_in_a_shard_runs(mark: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors")))
    torch.save({"a": Evil(mark)}, folder / "part.bin")
    (folder / "pytorch_model.bin.index.json").write_text('{"metadata": {}, "weight_map": {"a": "part.bin"}}')
    assert refuses(lambda: load_pretrained(str(folder), num_labels=2), LOADING) and not mark.exists()


@pytest.mark.parametrize("beside", ["the model", "the adapter"])
def test_no_code_of_a_tokenizer_runs(
    beside: str, mark: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "evil.py").write_text(CODE.format(str(mark)))
    document = json.loads((folder / "tokenizer_config.json").read_text())
    changes = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(document | changes))
    whole: Any = load_pretrained(str(tiny_model), 2)
    assert not runs_code(
        lambda: tokenizer_for(folder, whole) if "adapter" in beside else load_pretrained(str(folder), 2), mark
    )


def test_no_code_of_a_generation_configuration_runs(mark: Path, llama: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llama, tmp_path / "model"))
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(CODE.format(str(mark)) + "def generate(*a, **k): pass\n")
    (folder / "generation_config.json").write_text('{"custom_generate": ".", "trust_remote_code": true}')

    def generate() -> None:
        model: Any = load_pretrained(str(folder), 0, kind="generation").model
        model.generate(torch.ones(1, 2, dtype=torch.long), max_new_tokens=1)

    assert not runs_code(generate, mark)


ESCAPES = [
    "{{ cycler.__init__.__globals__.os.system('touch MARK') }}",
    "{{ lipsum.__globals__['os'].system('touch MARK') }}",
    "{{ joiner.__init__.__globals__['__builtins__'].open('MARK', 'w') }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() | length }}",
    "{{ strftime_now.__globals__['__builtins__'].open('MARK', 'w') }}",
    "{{ (messages | attr('__class__')).__mro__[1].__subclasses__() }}",
    "{{ '%s' | format(messages.append.__self__.__class__.__base__.__subclasses__()) }}",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_a_chat_template_leaves_no_sandbox(template: str, mark: Path) -> None:
    from datasets import Dataset

    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template.replace("MARK", str(mark))
    spec = TaskSpec("t", ("instruction",), ("log_likelihood",), kind="generation", data_dir="x", prompt="chat")
    records = Dataset.from_list([{"instruction": "a", "input": ""}])
    with pytest.raises(InputError):
        print(prompt_texts(records, tokenizer, spec))
    assert not mark.exists()


@pytest.mark.parametrize("script", ["mine.py", "dataset.py", "data/mine.py"])
def test_no_script_of_a_data_set_runs(script: str, mark: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / script).parent.mkdir(parents=True)
    (folder / script).write_text(CODE.format(str(mark)))
    (folder / "train.pkl").write_bytes(pickle.dumps(Evil(mark)))
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: train.pkl\n---\n")
    spec = TaskSpec("t", ("text",), ("accuracy",), source="hub", hub_path=str(folder))
    assert not runs_code(lambda: read_hub(spec), mark)
    assert not runs_code(lambda: read_files(TaskSpec("t", ("text",), ("accuracy",), data_dir=str(folder))), mark)


TAGS = [
    "!!python/object/apply:os.system ['touch MARK']",
    "!!python/object/apply:os.mkdir [MARK]",
    "!!python/object/apply:subprocess.check_call [[touch, MARK]]",
    "!!python/object/apply:builtins.open [MARK, w]",
    "!!python/object/apply:builtins.exec [\"open('MARK', 'w')\"]",
]
"""Each runs where it is read by a loader of YAML that is not safe."""


@pytest.mark.parametrize(
    ("tag", "group"),
    [*((tag, "task") for tag in TAGS), *((TAGS[0], group) for group in ("experiment", "model", "tracking"))],
)
def test_no_tag_of_a_yaml_of_configs_runs(tag: str, group: str, mark: Path, tmp_path: Path) -> None:
    (tmp_path / "configs" / group).mkdir(parents=True)
    content = f"name: {tag}\n".replace("MARK", str(mark))
    (tmp_path / "configs" / group / "mine.yaml").write_text(f"# @package {group}\n{content}")
    words = [f"hydra.searchpath=[file://{tmp_path / 'configs'}]", f"{'+' * (group == 'task')}{group}=mine"]
    assert not runs_code(lambda: composed("search", [*words, *(["+task=demo"] if group != "task" else [])]), mark)


@pytest.mark.parametrize("tag", TAGS)
def test_no_tag_in_the_card_of_a_model_runs(tag: str, mark: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "README.md").write_text(f"---\nlicense: {tag}\n---\n".replace("MARK", str(mark)))
    assert not runs_code(lambda: base_licence(str(folder)), mark)


SCRIPTS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</svg><script>alert(1)</script>",
    "&lt;b&gt;",
]


@pytest.mark.parametrize("text", SCRIPTS)
def test_no_name_is_a_script_of_the_report(text: str, tmp_path: Path) -> None:
    shape = {"nblocks": 2, "blk_r": 1, "in_features": 8, "out_features": 8}
    document = {"format": "morenas.architecture/1", "modules": {text: shape, f"a.{text}": shape}}
    (tmp_path / "architecture.json").write_text(json.dumps(document))
    (tmp_path / "search").mkdir()
    arrays: Any = {"probs": np.ones((1, 1, 1)), "groups": np.array([text]), "choices": np.array([text])}
    np.savez(tmp_path / "search" / "trajectory.npz", **arrays)
    row = RESULTS["methods"][0] | {"name": text, "details": {text: text}}
    named = {key: text for key in ("task", "command", "device", "git_commit", "kind")}
    more = {"data": {text: text}, "versions": {text: text}, "model": RESULTS["model"] | {"name": text}}
    write_report(tmp_path, RESULTS | {"methods": [row], "budget": None} | named | more)
    page = (tmp_path / "report.html").read_text()
    assert text not in page and "<script" not in page.lower() and "<img src=x" not in page


def test_the_yaml_files_of_a_run_are_never_read(mark: Path, tmp_path: Path) -> None:
    """They are for people: run.json is what a run goes on from."""
    from morenas.run.directory import RunDirectory
    from morenas.run.reading import read_record

    directory = RunDirectory(tmp_path / "run")
    directory.begin("search", composed("search", ["+task=demo"]), ["+task=demo"])
    for name in ("config.yaml", "overrides.yaml", "hydra.yaml", "../multirun.yaml"):
        (tmp_path / "run" / ".hydra" / name).write_text(TAGS[0].replace("MARK", str(mark)))
    assert read_record(tmp_path / "run").overrides == ["+task=demo"] and directory.saved_overrides() == ["+task=demo"]
    assert not mark.exists()
