"""From words on a command line to a config: quick, from anywhere, in sweeps."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.hydra import Hydra
from tiny_runs import SEARCH_WORDS, CommandLine, read, task_words

from morenas.base.errors import RunError

FEW = ["search.steps=3", "training.max_steps=2", "training.evals=1"]
ROOT = Path(__file__).parents[2]
LORA = ["method=lora", "model.name_or_path=demo", "tracking=local"]


def process(words: list[str], directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *options, "-m", *words],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["morenas.search", "--help"], "+task=demo"),
        (["morenas.search", "+task=glue/rte", "--cfg", "job"], "learning_rate: 0.00054"),
        (["morenas.finetune", "--help"], "method=lora"),
        (["morenas.compare", "--help"], "--format"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_help_and_configs_are_quick_and_come_from_any_directory(words: list[str], said: str, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = process(words, tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    # Processor time: the machine may be busy with other things.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert not list(tmp_path.iterdir())


def test_a_refusal_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = process(["morenas.search", "+task=demo", "training.lerning_rate=1"], tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "morenas: error: training.lerning_rate: there is no such key (did you mean 'training.learning_rate'?).\n"
    )
    assert done.stdout == "" and not list(tmp_path.iterdir())


def test_without_a_hub_the_default_says_so_and_names_both_ways_out(tmp_path: Path) -> None:
    environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "cache")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        done = process(["morenas.search", "+task=glue/rte"], tmp_path, "-X", "importtime")
    lines = done.stderr.splitlines()
    imported = {line.split("|")[-1].strip() for line in lines if line.startswith("import time:")}
    (error,) = (line for line in lines if not line.startswith("import time:"))
    assert done.returncode == 2 and "hydra" in imported and not {"torch", "transformers"} & imported
    for said in (
        "http://127.0.0.1:9",
        "nyu-mll/glue",
        "roberta-base",
        "task.data_dir",
        "model.name_or_path",
        "+task=demo",
    ):
        assert said in error


def test_a_sweep_runs_every_job_shares_a_group_and_returns_what_a_sweeper_maximizes(
    command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rte", "mrpc"):
        (tmp_path / name).mkdir()
        for file in tiny_task.glob("*.jsonl"):
            text = file.read_text().replace('{"text":', '{"sentence2": "", "sentence1":')
            (tmp_path / name / file.name).write_text(text)
    returned: list[float] = []
    multirun = Hydra.multirun

    def told(*given: Any, **named: Any) -> Any:
        batches = multirun(*given, **named)
        returned.extend(job.return_value for batch in batches for job in batch)
        return batches

    monkeypatch.setattr(Hydra, "multirun", told)
    # Metrics that differ from run to run and from split to split.
    monkeypatch.setattr(
        "morenas.finetune.stage.compute_metrics",
        lambda names, kind, logits, labels: dict.fromkeys(names, float(logits.mean())),
    )
    unwanted = ("space.ranks", "+task", "task.data_dir", "task.text_columns")
    words = [word for word in task_words(tmp_path, tiny_model) + SEARCH_WORDS if not word.startswith(unwanted)]
    words += [*FEW, f"task.data_dir={tmp_path}", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    done = command("search", "-m", *words, "+task=glue/rte,glue/mrpc", "space.ranks=[0,1],[0,1,2]", "seed=5")
    assert done.status == 0, done.err
    runs = sorted(path.parent for path in (tmp_path / "sweep").glob("*/results.json"))
    found = [read(run / "results.json")["methods"][0]["metrics"] for run in runs]
    assert len(runs) == 4 and returned == [metrics["select"]["accuracy"] for metrics in found]
    assert all(metrics["select"] != metrics["test"] for metrics in found)
    assert {read(run / "results.json")["task"] for run in runs} == {"glue/rte", "glue/mrpc"}
    groups = {read(run / ".hydra" / "run.json")["config"]["tracking"]["wandb"]["group"] for run in runs}
    assert groups == {"sweep"}
    assert len({read(run / "results.json")["command"] for run in runs}) == 4


def test_a_failed_job_of_a_sweep_lets_its_siblings_run(
    command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path
) -> None:
    words = [word for word in task_words(tiny_task, tiny_model) if not word.startswith("task.text_columns")]
    sweep = ["task.text_columns=[txt],[text]", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    done = command("search", "-m", *words, *SEARCH_WORDS, *FEW, *sweep)
    assert done.status == 2
    assert done.err.count("there is no column 'txt'") == 1 and "Traceback" not in done.err
    assert "morenas: error: job 0: " in done.err
    assert len(list((tmp_path / "sweep").glob("*/results.json"))) == 1


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 1, "morenas: interrupted; go on with: python -m morenas.search resume="),
        (RunError("nothing moved"), 1, "morenas: failed: nothing moved"),
        (OSError("disk full"), None, "once what follows is mended, go on with: python -m morenas.search resume="),
    ],
    ids=repr,
)
def test_work_that_is_cut_off_says_how_to_go_on(
    command: CommandLine,
    tiny_task: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: BaseException,
    status: int | None,
    said: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("morenas.search.engine.search_architecture", fail)
    words = [*task_words(tiny_task, tiny_model, tmp_path / "run"), *SEARCH_WORDS]
    if status is None:
        with pytest.raises(type(error)):
            command("search", *words)
        assert said in capfd.readouterr().err
    else:
        done = command("search", *words)
        assert done.status == status and said in done.err
    assert (tmp_path / "run" / ".hydra" / "run.json").exists()


def test_a_run_that_is_terminated_says_how_to_go_on(
    command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(
        "morenas.search.engine.search_architecture", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)
    )
    done = command("search", *task_words(tiny_task, tiny_model, tmp_path / "run"), *SEARCH_WORDS)
    said = f"morenas: interrupted; go on with: python -m morenas.search resume={tmp_path / 'run'}"
    assert done.status == 1 and done.err.strip() == said
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    "place", [[], ["hydra.run.dir=a/b/c"], ["hydra.run.dir='a/b/c'"], ["hydra.run.dir=a/${seed}/c"]]
)
def test_a_refused_run_leaves_no_folder(
    command: CommandLine, place: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("finetune", "+task=files", "task.text_columns=[text]", "task.data_dir=gone", *LORA, *place)
    assert done.status == 2 and "gone" in done.err
    assert not list(tmp_path.iterdir())


def test_bad_data_are_refused_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label": 0}\n{"text": "b", "label": ""}\n')
    (tmp_path / "test.jsonl").write_text('{"text": "c", "label": 0}\n')
    words = ["+task=files", "task.text_columns=[text]", f"task.data_dir={tmp_path}", "model.name_or_path=demo"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = process(["morenas.search", *words], tmp_path, "-X", "importtime")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2 and "train.jsonl, line 2: the label is missing" in done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert not imported & {"torch", "transformers", "datasets", "wandb", "peft"}
    # Processor time: the machine may be busy with other things.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.jsonl", "train.jsonl"]
