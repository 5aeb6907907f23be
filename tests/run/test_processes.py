"""A run of several processes is the run of one; it begins, ends and goes on as one."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from several import Several, started
from tiny_models import save_tiny
from tiny_runs import SEARCH_WORDS, CommandLine, task_words, write_task

from morenas.base.errors import InputError
from morenas.run.processes import OTHERS, Team

SHORT = ["search.steps=6", "training.max_steps=6", "training.evals=2", "training.checkpoint_every=2", "compare=lora"]


@pytest.fixture(scope="module", autouse=True)
def _no_report() -> Iterator[None]:
    """Drawing it takes longer than a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("morenas.run.publish.write_report", lambda directory, results: None)
        yield


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A short search with its final fine-tune and a LoRA beside it; 7 examples a step are no even number."""
    root = tmp_path_factory.mktemp("task")
    no_dropout: Any = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # which shares draw otherwise
    model = save_tiny("bert", root / "model", num_hidden_layers=1, **no_dropout)
    data = write_task(root / "data", rows=48)
    return [*task_words(data, model), *SEARCH_WORDS, *SHORT, "training.batch_size=7"]


@pytest.fixture(scope="module")
def together(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of two processes."""
    root = tmp_path_factory.mktemp("two")
    outcomes = begun(2, words, root / "run", root / "said").wait()
    assert [outcome.status for outcome in outcomes] == [0, 0], outcomes
    assert "architecture" in outcomes[0].out and (outcomes[1].out, outcomes[1].err) == ("", "")
    return root / "run"


def begun(count: int, words: list[str], directory: Path, said: Path) -> Several:
    return started(count, "search", [*words, f"hydra.run.dir={directory}"], said)


def gone_on(count: int, directory: Path, said: Path) -> Several:
    return started(count, "search", [f"resume={directory}"], said)


def made(directory: Path) -> dict[str, Any]:
    """What a run has left, without times and the words that began it."""
    skipped = (".hydra", "results.json")
    files: dict[str, Any] = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        name = str(path.relative_to(directory))
        files[name] = None if name.startswith(skipped) else path.read_bytes()
        if path.name == "adapter_config.json":  # PEFT writes sets in the order of their hashes
            files[name] = {key: sorted(v) if isinstance(v, list) else v for key, v in json.loads(files[name]).items()}
    results = json.loads((directory / "results.json").read_text())
    files["results.json"] = [{**row, "seconds": None} for row in results["methods"]]
    return files


def test_two_processes_make_the_run_of_one(together: Path, words: list[str], command: CommandLine) -> None:
    one = together.parent / "one"
    assert command("search", *words, "training.shares=2", f"hydra.run.dir={one}").status == 0
    assert made(together) == made(one)


def test_shares_change_a_run_by_rounding_alone(together: Path, words: list[str], command: CommandLine) -> None:
    whole = together.parent / "whole"
    assert command("search", *words, f"hydra.run.dir={whole}").status == 0
    found = [json.loads((run / "architecture.json").read_text()) for run in (whole, together)]
    assert found[0]["modules"] == found[1]["modules"]
    assert found[0]["search"]["passes"] == pytest.approx(found[1]["search"]["passes"], abs=0.02)
    for name in ("search", "finetune"):
        lines = [(run / name / "metrics.jsonl").read_text().splitlines() for run in (whole, together)]
        for line, other in zip(*lines, strict=True):
            assert json.loads(line) == pytest.approx(json.loads(other), rel=2e-4, abs=2e-5)


@pytest.mark.parametrize("count", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_process_ends_all_and_any_number_goes_on(
    count: int, together: Path, words: list[str], tmp_path: Path
) -> None:
    several = begun(2, words, tmp_path / "run", tmp_path / "said")
    end = time.monotonic() + 60
    while not list((tmp_path / "run" / "checkpoints").glob("finetune/checkpoint-*/manifest.json")):
        assert time.monotonic() < end
        time.sleep(0.01)
    several.kill(1)
    first, second = several.wait()
    assert (first.status, second.status) == (1, -9)
    (line,) = first.err.splitlines()
    assert line.startswith("morenas: ") and f"resume={tmp_path / 'run'}" in line
    outcomes = gone_on(count, tmp_path / "run", tmp_path / "again").wait()
    assert [outcome.status for outcome in outcomes] == [0] * count, outcomes
    assert made(tmp_path / "run") == made(together)


def test_a_loss_that_is_not_finite_ends_all_with_one_message(words: list[str], tmp_path: Path) -> None:
    first, second = begun(2, [*words, "training.learning_rate=1e30"], tmp_path / "run", tmp_path / "said").wait()
    assert (first.status, second.status) == (1, 1)
    assert first.err.startswith("morenas: failed: Search: the ") and len(first.err.splitlines()) == 1
    assert second.err == ""


def test_what_is_refused_is_refused_once_and_leaves_nothing(words: list[str], tmp_path: Path) -> None:
    before = set(Path(tempfile.gettempdir()).glob("morenas-*"))
    first, second = begun(2, [*words, "training.evals=0"], tmp_path / "run", tmp_path / "said").wait()
    assert (first.status, second.err) == (2, "") and "training.evals=0" in first.err
    assert not (tmp_path / "run").exists() and set(Path(tempfile.gettempdir()).glob("morenas-*")) == before


def test_what_one_process_alone_has_to_say_is_said(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_device(self: Team, config: Any) -> None:
        if not self.first:
            raise InputError("this machine has no such device")

    monkeypatch.setattr("morenas.run.processes.PATIENCE", 0.0)
    monkeypatch.setattr("morenas.run.processes.Team.settle", no_device)
    first, second = begun(2, words, tmp_path / "run", tmp_path / "said").wait()
    assert second.status == 2 and second.err.startswith("process 1 of 2: morenas: error: this machine has no such ")
    assert first.status == 1 and "resume=" in first.err  # it was told to end


@pytest.mark.parametrize("name", ["WORLD_SIZE", *OTHERS])
def test_a_launcher_that_does_not_say_where_processes_meet_is_refused(
    command: CommandLine, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, "2")
    done = command("search", "+task=demo")
    assert done.status == 2 and f"{name}=2: a launcher has started 2 processes" in done.err
    assert not list(tmp_path.iterdir())


def test_a_sweep_is_not_begun_several_times(
    command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    done = command("search", "-m", "+task=demo", "seed=0,1")
    assert done.status == 2 and "a sweep (--multirun) starts its runs itself" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", ["1", "", "none"])
def test_one_process_is_a_run(command: CommandLine, count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", count)
    assert command("search", "+task=demo", "--cfg", "job").status == 0


def torchrun(count: int, words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "--master-port", "0"]
    return subprocess.run(
        [*start, "-m", "morenas.search", *words], cwd=folder, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_torchrun_makes_the_same_run(together: Path, words: list[str], tmp_path: Path) -> None:
    done = torchrun(2, [*words, f"hydra.run.dir={tmp_path / 'run'}"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert made(tmp_path / "run") == made(together)


@pytest.mark.slow
def test_processes_killed_at_random_moments(together: Path, words: list[str], tmp_path: Path) -> None:
    """30 times one of two processes is killed; the run always goes on to the same end."""
    moments = random.Random(0)
    usual = 8.0
    for index in range(30):
        run, said = tmp_path / str(index) / "run", tmp_path / str(index) / "said"
        several = begun(2, words, run, said)
        time.sleep(moments.uniform(0.0, usual))
        killed = moments.randrange(2)
        several.kill(killed)
        outcomes = several.wait()
        if (run / "results.json").exists():
            assert made(run) == made(together), outcomes
            continue
        again = gone_on if (run / ".hydra" / "run.json").exists() else None
        several = gone_on(2, run, said) if again else begun(2, words, run, said)
        outcomes = several.wait()
        assert [outcome.status for outcome in outcomes] == [0, 0], (index, outcomes)
        assert made(run) == made(together), index
