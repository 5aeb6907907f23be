"""A sweep goes on by the same line: what is complete is not run again, and nothing passes for what it is not."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
from hydra._internal.hydra import Hydra
from omegaconf import OmegaConf
from run_documents import RESULTS, ROW
from tiny_runs import SEARCH_WORDS, CommandLine, run, task_words
from whole import contents, differences

from morenas.base.errors import InputError, RunError
from morenas.finetune.config import FinetuneRunConfig
from morenas.run import publish
from morenas.run.config import SweepConfig, Task, TrackingConfig, Wandb
from morenas.run.directory import RunDirectory
from morenas.run.reading import RECORD, is_complete
from morenas.run.results import write_results
from morenas.run.sweeps import Beginning, claimed, told

CONFIG = FinetuneRunConfig(task=Task(name="t", text_columns=["text"], metrics=["accuracy"]))


@dataclass
class Sweep:
    """The jobs of one, which Hydra would make the directories of, without Hydra.

    Attributes:
        ran: The names of the directories that were worked in.
    """

    folder: Path
    ran: list[str] = field(default_factory=list)

    def job(self, name: str, command: str = "finetune", complete: bool = True, **changes: Any) -> RunDirectory:
        """A job of a directory of that name: claimed, and run to its end where it is not complete."""
        own = self.folder / name
        own.mkdir(parents=True, exist_ok=True)
        hydra: Any = OmegaConf.create(
            {"sweep": {"dir": str(self.folder)}, "job": {"num": 0}, "overrides": {"task": ["word"]}}
        )
        directory = claimed(RunDirectory(own), command, replace(deepcopy(CONFIG), **changes), hydra)
        if not is_complete(directory.path):
            self.ran.append(directory.path.name)
            if complete:
                write_results(directory.results, RESULTS)
                directory.drop_checkpoints()
        return directory


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path / "sweep")


def test_a_complete_job_is_left_as_it_is(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.job("0", seed=3)
    before = contents(sweep.folder)
    assert sweep.job("0", seed=3).path == sweep.folder / "0" and sweep.ran == ["0"]
    assert capsys.readouterr().out == f"Job 0 is complete: {sweep.folder / '0'}\n"
    assert not differences(before, contents(sweep.folder))


def test_a_half_done_job_goes_on(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.job("0", complete=False)
    assert sweep.job("0").path == sweep.folder / "0" and sweep.ran == ["0", "0"]
    assert capsys.readouterr().out == f"Job 0 goes on: {sweep.folder / '0'}\n"


def test_a_job_is_found_whatever_number_it_had(sweep: Sweep) -> None:
    """Numbers move when a sweep gets more values, or the same ones in another order."""
    sweep.job("0-seed0", seed=0)
    sweep.job("1-seed1", seed=1, complete=False)
    for number, seed in enumerate((2, 1, 0, 1)):
        sweep.job(f"{number}-seed{seed}", seed=seed)
    assert sweep.ran == ["0-seed0", "1-seed1", "0-seed2", "1-seed1"]
    assert sorted(path.name for path in sweep.folder.iterdir()) == ["0-seed0", "0-seed2", "1-seed1"]


def test_a_job_of_other_settings_is_refused_with_their_keys(sweep: Sweep) -> None:
    sweep.job("0")
    before = contents(sweep.folder)
    with pytest.raises(InputError, match=r"differs in task\.name, threads\)"):
        sweep.job("0", threads=1, task=Task(name="u", text_columns=["text"], metrics=["accuracy"]))
    with pytest.raises(InputError, match=r"differs in command\)"):
        sweep.job("0", command="search")
    assert sweep.ran == ["0"] and not differences(before, contents(sweep.folder))


def test_a_record_that_cannot_be_read_passes_for_no_job(sweep: Sweep) -> None:
    sweep.job("0", seed=0)
    (sweep.folder / "0" / RECORD).write_text("{}")
    with pytest.raises(InputError, match="not what a run wrote"):
        sweep.job("1", seed=0)


def test_where_asked_for_what_is_there_is_refused(sweep: Sweep) -> None:
    sweep.job("0", seed=0)
    sweep.job("1", seed=1, complete=False)
    for name, seed, said in (("0", 0, "complete run"), ("1", 1, "this very run")):
        with pytest.raises(InputError, match=said):
            sweep.job(name, seed=seed, sweep=SweepConfig(again="fail"))
    assert sweep.ran == ["0", "1"]
    sweep.job("0", seed=0, sweep=SweepConfig(objective=("seconds",)))  # what is done with runs is no setting of theirs
    assert sweep.ran == ["0", "1"]


def test_a_moved_sweep_goes_on_unless_the_user_has_named_its_group(sweep: Sweep) -> None:
    sweep.job("0", complete=False)
    sweep.folder = sweep.folder.rename(sweep.folder.with_name("moved"))
    sweep.job("0")
    assert sweep.ran == ["0", "0"]
    with pytest.raises(InputError, match=r"differs in tracking\.wandb\.group"):
        sweep.job("0", tracking=TrackingConfig(wandb=Wandb(group="mine")))


def test_a_sweeper_is_told_what_it_asks_for(tmp_path: Path) -> None:
    phases = [{"name": "prepare", "seconds": 1.5, "steps": 0, "peak_memory_bytes": None}]
    row = {**ROW, "adapter_params": 7}
    write_results(tmp_path / "results.json", {**RESULTS, "methods": [row], "phases": [phases[0], phases[0]]})
    assert told(tmp_path / "results.json", ["value"]) == 0.5
    assert told(tmp_path / "results.json", ["seconds", "adapter_params", "value"]) == [3.0, 7.0, 0.5]


def test_what_a_sweeper_cannot_be_told_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'value'"):
        tiny_runs.composed("finetune", ["+task=demo", "sweep.objective=[values]"])
    assert tiny_runs.composed("finetune", ["+task=demo"]).sweep.objective == ["value"]


def test_submitit_s_files_go_where_nobody_can_have_put_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It unpickles what it finds under a job's number, and a sweep's folder may be anybody's."""

    def chosen(place: str) -> Path:
        launcher = {"submitit_folder": place}
        config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}, "launcher": launcher}})
        OmegaConf.set_readonly(config, True)
        Beginning().on_multirun_start(config)
        return Path(config.hydra.launcher.submitit_folder)

    first, second = (chosen("${hydra.sweep.dir}/.submitit/%j") for _ in range(2))
    assert first != second and first.parent.parent == tmp_path / ".submitit" and first.name == "%j"
    assert not list(first.parent.iterdir()) and str(first.parent) in capsys.readouterr().out
    assert chosen("/elsewhere/%j") == Path("/elsewhere/%j")


WORDS = ["-m", "+task=demo", "method=head", "tracking=local", "seed=0,1"]


def failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the run of seed 0 fail, and that of seed 1 write nothing but its results."""

    def execute(config: Any, directory: RunDirectory) -> float:
        if config.seed == 0:
            raise error
        write_results(directory.results, {**RESULTS, "seed": config.seed})
        return 0.0

    command = replace(tiny_runs.COMMANDS["finetune"], execute=execute)
    monkeypatch.setitem(tiny_runs.COMMANDS, "finetune", command)


def test_a_job_that_fails_shows_its_traceback_and_the_others_are_in_the_table(
    command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(ZeroDivisionError("by nothing"), monkeypatch)
    done = command("finetune", *WORDS, f"hydra.sweep.dir={tmp_path}")
    assert done.status == 1 and done.err.count("ZeroDivisionError: by nothing\n") == 1
    assert "not all jobs are complete; go on with the same line" in done.err
    assert "\n| t | " in done.out and f"python -m morenas.compare {tmp_path}" in done.out


@pytest.mark.parametrize(
    ("error", "status", "said"), [(KeyboardInterrupt(), 1, "interrupted"), (RunError("no"), 1, "failed: job 0: no")]
)
def test_a_sweep_that_is_cut_off_says_how_it_goes_on(
    command: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    said: str,
) -> None:
    failing(error, monkeypatch)
    done = command("finetune", *WORDS, f"hydra.sweep.dir={tmp_path}")
    assert done.status == status and said in done.err and "Traceback" not in done.err
    assert done.err.endswith(f"go on with the same line and hydra.sweep.dir={tmp_path}\n")


def test_a_killed_sweep_goes_on(tiny_task: Path, tiny_model: Path, tmp_path: Path) -> None:
    words = [*task_words(tiny_task, tiny_model), "method=head", "training.max_steps=1", "training.evals=1"]
    check_kills(tmp_path, "finetune", [*words, "seed=0,1,2"], 3, kills=1)


@pytest.mark.slow
def test_a_sweep_of_twelve_that_is_killed_five_times_ends_as_one_that_is_not(
    tiny_task: Path, tiny_model: Path, tmp_path: Path
) -> None:
    words = [*task_words(tiny_task, tiny_model), *SEARCH_WORDS, "search.steps=3", "training.max_steps=2"]
    words += ["training.evals=1", "seed=0,1,2,3,4,5", "space.ranks=[0,1,2],[0,1]"]
    check_kills(tmp_path, "search", words, 12, kills=5)


def check_kills(folder: Path, command: str, words: list[str], jobs: int, kills: int) -> None:
    """A sweep that is killed and gone on with by the same line leaves and tells what an undisturbed one does.

    Each kill comes before some file gets its name: the first among the files of the first jobs, and so on.
    """
    files, told = process(folder / "whole", command, words)
    rng, share = random.Random(0), files // (kills + 1)
    for _ in range(kills):
        assert process(folder / "killed", command, words, rng.randint(2, share)) == (-signal.SIGKILL, None)
    assert process(folder / "killed", command, words)[1] == told and len(told) == jobs
    published = (folder / "killed" / "published").read_text().splitlines()
    assert len(published) == len({*published}) == jobs  # none ran twice
    whole, killed = (
        {path: of for path, of in contents(folder / name / "sweep").items() if path != "multirun.yaml"}
        for name in ("whole", "killed")
    )
    assert not differences(whole, killed)


def process(folder: Path, command: str, words: Sequence[str], kill_at: int = 0) -> tuple[int, Any]:
    """A sweep in a process of its own: how many files got their names, and what the sweeper was told.

    Args:
        kill_at: Before the how manieth of them it is killed; 0 for none.
    Returns:
        Where it was killed, that signal and None.
    """
    folder.mkdir(exist_ok=True)
    child = os.fork()
    if child == 0:
        _become(folder, command, words, kill_at)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        assert status == -signal.SIGKILL, (folder / "output").read_text()
        return status, None
    return tuple(json.loads((folder / "told").read_text()))


def _become(folder: Path, command: str, words: Sequence[str], kill_at: int) -> None:
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = sys.stderr = os.fdopen(1, "w")
    rename, multirun, named = os.replace, Hydra.multirun, 0
    told: list[Any] = []

    def counted(source: Any, place: Any) -> None:
        nonlocal named
        named += 1
        if named == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, place)
        if Path(place).name == "results.json":
            with open(folder / "published", "a") as file:
                file.write(f"{place}\n")

    def telling(*given: Any, **options: Any) -> Any:
        batches = multirun(*given, **options)
        told.extend(job.return_value for batch in batches for job in batch)
        return batches

    status = 1
    try:
        publish.write_report = lambda directory, results: None
        os.replace, Hydra.multirun, Hydra.get_mode = counted, telling, lambda *_, **__: None  # type: ignore[assignment]
        sys.argv = [f"morenas.{command}", "-m", *words, f"hydra.sweep.dir={folder / 'sweep'}"]
        status = run(command)
        (folder / "told").write_text(json.dumps([named, told]))
    finally:
        sys.stdout.flush()
        os._exit(status)
