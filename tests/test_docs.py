"""What the documentation shows is there and works: code, commands, settings, files and links."""

from __future__ import annotations

import importlib.util
import json
import pkgutil
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from tiny_models import save_tiny_causal
from tiny_runs import COMMANDS, SEARCH_WORDS, CommandLine, composed, task_words
from wandb.sdk.launch.sweeps import utils as wandb_sweeps

import morenas
from morenas.adapters.published import to_published
from morenas.base.files import read_json
from morenas.base.registry import GROUP
from morenas.benchmark import command as benchmark
from morenas.compare import command as compare
from morenas.export import command as export
from morenas.monarch import num_parameters
from morenas.run.composing import compose_words, config_directory, known_keys
from morenas.run.launch import CONFIGS, prepare
from morenas.run.usage import usage
from morenas.run.words import parse

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

WRITTEN = {"adapter": "MORENAS", "lora": "LORA", "from-lora": "MORENAS", "from-published": "MORENAS"}
"""Adapter folders that the page leaves, with their types."""

DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCUMENTS += sorted((ROOT / "docs").rglob("*.md"))
RECORDS = sorted((ROOT / "experiments").rglob("*.md"))  # of the past: their commands are those of their commits
LINK = re.compile(r"\]\((?!\w+:|#|<)([^)\s#]+)")
COMMAND = re.compile(r"python -m morenas\.(\w+)([^`\n#&]*)")
WORD_COMMANDS = {"export": export.COMMAND, "compare": compare.COMMAND, "benchmark": benchmark.COMMAND}
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
TREES = ("configs", "docs", "examples", "experiments", "morenas", "scripts", "tests")


def run_blocks(page: Path) -> dict[str, Any]:
    """Run the python blocks of a page, one after the other, in one namespace; tracebacks name the page's own lines."""
    text, names = page.read_text(encoding="utf-8"), {"__name__": page.stem}
    blocks = list(BLOCK.finditer(text))
    assert blocks, f"{page} shows no python"
    for block in blocks:
        above = text[: block.start(1)].count("\n")
        exec(compile("\n" * above + block[1], str(page), "exec"), names)
    return names


def published_checkpoint(file: Path) -> None:
    """Every linear layer of the demo's model adapted, and its head, as the paper's code saves them."""
    base = morenas.load_pretrained("demo", num_labels=2)
    linears = morenas.target_linears(base.model, exclude=base.head)
    factors = {name: (torch.ones(4, 2, n // 4), torch.ones(4, m // 4, 2)) for name, (n, m) in linears.items()}
    head = {name: tensor for name, tensor in base.model.state_dict().items() if name.startswith(base.head)}
    torch.save({**to_published(factors, linears), **head}, file)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the files of a user's own that the page speaks of."""
    save_tiny_causal(tmp_path / "my-model", "llama")
    published_checkpoint(tmp_path / "published.bin")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_page_runs_from_top_to_bottom(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run_blocks(PAGE)
    outcome = names["outcome"]
    assert outcome.params == sum(num_parameters(*names["linears"][m], *c) for m, c in outcome.shapes.items()) > 0
    assert morenas.Architecture.from_json("architecture.json") == outcome.architecture
    kinds = {name: read_json(folder / name / "adapter_config.json", "adapter")["peft_type"] for name in WRITTEN}
    assert kinds == WRITTEN
    assert "{'accuracy': " in capsys.readouterr().out


def shown(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def commands() -> list[tuple[str, str]]:
    """Every command line that a document shows, as command and words; ``test_extending`` runs those with plug-ins."""
    found = {command.groups() for document in DOCUMENTS for command in COMMAND.finditer(shown(document))}
    found = {(command, words) for command, words in found if "plugins=" not in words}
    return sorted((command, words.strip()) for command, words in found)


def help_on(command: str, words: list[str]) -> str:
    """What ``--help`` prints."""
    about, schema = COMMANDS[command].about, COMMANDS[command].schema
    prepare(command, schema, [])
    return usage(command, about, schema, CONFIGS, words)


def accepted(command: str, words: list[str]) -> object:
    """What a command line of Hydra's sets, of a sweep in its first job; or the help that it asks for."""
    if "--help" in words:
        return help_on(command, words)
    overrides = [word for word in words if not word.startswith("-")]
    if not importlib.util.find_spec("hydra_plugins"):
        overrides = [word for word in overrides if not re.match(r"hydra[./]launcher", word)]
    for index, override in enumerate(OverridesParser.create().parse_overrides(overrides)):
        if override.is_sweep_override():
            overrides[index] = f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
    if any(word.startswith(("+task=", "experiment=")) for word in overrides):
        return composed(command, overrides)
    prepare(command, COMMANDS[command].schema, overrides)
    return compose_words(command, overrides)


@pytest.mark.parametrize("document", [*DOCUMENTS, *RECORDS], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file(document: Path) -> None:
    assert [link for link in LINK.findall(shown(document)) if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("command, words", commands())
def test_every_command_that_is_shown_is_accepted(command: str, words: str, tmp_path: Path) -> None:
    filled = shlex.split(re.sub(r"<([\w /]+)>", "folder", words))
    if command in COMMANDS:
        assert accepted(command, filled)
    elif filled and "--help" not in filled:
        assert parse(WORD_COMMANDS[command], filled)


def test_a_misspelt_command_would_be_noticed() -> None:
    assert ("search", "+task=demo") in commands()
    assert len(commands()) >= 20
    with pytest.raises(Exception, match="trainign"):
        accepted("search", ["+task=demo", "trainign.epochs=1"])


def test_the_sweep_of_w_and_b_that_is_shown_starts_runs_each_in_a_directory_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", shown(ROOT / "docs" / "cluster.md"), re.MULTILINE | re.DOTALL)
    sweep: Any = OmegaConf.to_container(OmegaConf.create(block))
    args = {key: {"value": of.get("min") or of["values"][-1]} for key, of in sweep["parameters"].items()}
    made = wandb_sweeps.create_sweep_command_args({"args": args})
    filled = {"${env}": ["env"], "${args_no_hyphens}": made["args_no_hyphens"]}
    words = [word for part in sweep["command"] for word in filled.get(part, [part])]
    assert words[:4] == ["env", "python", "-m", "morenas.search"]
    config = composed("search", words[4:])
    assert (config.training.learning_rate, config.budget.fraction, config.seed) == (0.0002, 0.1, 2)
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    (place,) = (word for word in words if word.startswith("hydra.run.dir="))
    assert OmegaConf.create({"dir": place.partition("=")[2]}).dir == "runs/wandb/abc"
    assert sweep["metric"]["name"] == "select/accuracy"  # as ``summary`` in ``morenas.run.publish`` names it


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_that_is_named_exists(document: Path) -> None:
    keys = {key for command in COMMANDS.values() for key in known_keys(command.schema)}
    sections = {key.split(".")[0] for key in keys if "." in key}
    lines = (words for _, words in COMMAND.findall(shown(document)) if "plugins=" in words)
    brought = {word for line in lines for word in line.split()}  # what plug-ins bring, ``test_extending`` looks at
    words = {word for code in CODE.findall(shown(document)) for word in code.split()} - brought
    named = {word.lstrip("+").split("=")[0] for word in words if re.match(r"\+?[a-z_]+\.[a-z_.]+(=|$)", word)}
    settings = {key for key in named if key.split(".")[0] in sections}
    assert {key for key in settings if key not in keys and not key.startswith("data.")} == set()
    groups = [word.split("=") for word in words if re.fullmatch(r"[a-z_]+=[a-z0-9_|/]+", word)]
    folders = {path.name for path in Path(config_directory()).iterdir()}
    chosen = [(group, choice) for group, choices in groups if group in folders for choice in choices.split("|")]
    assert [choice for choice in chosen if not (Path(config_directory(), *choice).with_suffix(".yaml")).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_of_the_repository_that_is_named_exists(document: Path) -> None:
    words = {word for code in CODE.findall(shown(document)) for word in code.split()}
    named = {word for word in words if word.split("/")[0] in TREES and "/" in word and "<" not in word}
    assert {word for word in named if not (ROOT / word).exists()} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_and_name_of_the_package_that_is_named_exists(document: Path) -> None:
    text = re.sub(r"^\| .*? \| ", "", shown(document), flags=re.MULTILINE)  # of a table, what was before, say
    for name in (word for word in CODE.findall(text) if re.fullmatch(r"morenas(\.\w+)+", word)):
        assert name == GROUP or pkgutil.resolve_name(name) is not None


def test_the_page_on_runs_explains_every_file_key_and_metric_of_a_run(
    reporting_command: CommandLine, tmp_path: Path, tiny_task: Path, tiny_model: Path
) -> None:
    run, page = tmp_path / "run", shown(ROOT / "docs" / "reading-a-run.md")
    words = [*task_words(tiny_task, tiny_model, run), *SEARCH_WORDS, "search.start=level", "compare=lora"]
    assert reporting_command("search", *words).status == 0
    explained = set(CODE.findall(page))
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    folders = {name for name in explained if name.endswith("/")}
    assert {file for file in files if file not in explained and not file.startswith(tuple(folders))} == set()
    metrics = {key for file in files if file.endswith("metrics.jsonl") for key in _keys_of_lines(run / file)}
    named = {key for key in metrics - explained if not key.startswith(("finetune/select_", "compare_lora/"))}
    assert named == set()
    for file in ("results.json", "architecture.json"):
        assert set(read_json(run / file, file)) - explained == {"format"}
    results = read_json(run / "results.json", "results")
    assert {key for part in ("methods", "phases") for row in results[part] for key in row} - explained == {"name"}
    assert {phase["name"] for phase in results["phases"]} <= explained
    with np.load(run / "search" / "trajectory.npz") as arrays:
        assert set(arrays.files) <= explained


def _keys_of_lines(file: Path) -> set[str]:
    return {key for line in file.read_text().splitlines() for key in json.loads(line)}
