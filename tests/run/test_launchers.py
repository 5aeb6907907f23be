"""Jobs that a launcher of Hydra's runs beside each other: each in its own directory, each as if it were alone."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_slurm
import pytest
from tiny_runs import CommandLine, task_words
from whole import contents, differences

from morenas.run.labels import labelled

ROOT = Path(__file__).parents[2]
SEEDS = (0, 1)


def needs(launcher: str) -> None:
    plugin = "hydra_joblib_launcher" if launcher == "joblib" else "hydra_submitit_launcher"
    if not importlib.util.find_spec("hydra_plugins") or not importlib.util.find_spec(f"hydra_plugins.{plugin}"):
        pytest.skip(f"{plugin} is not installed: pip install 'morenas[sweeps]'")


class Launched:
    """Sweeps of a tiny task in processes of their own."""

    def __init__(self, data: Path, model: Path, folder: Path) -> None:
        self.words, self.folder = [*task_words(data, model), "method=head", "training.evals=1"], folder
        self.environment = fake_slurm.installed(folder / "slurm")

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "morenas.finetune", "-m", *self.words, *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self.environment}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def __call__(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=280)
        return process.returncode, out, err


@pytest.fixture
def launched(tiny_task: Path, tiny_model: Path, tmp_path: Path) -> Launched:
    return Launched(tiny_task, tiny_model, tmp_path)


def runs(sweep: Path) -> dict[str, object]:
    """What the jobs of a sweep have left, but for the drawn pages, which hold times."""
    left = contents(sweep)
    return {path: of for path, of in left.items() if "-files-seed" in path and not path.endswith("report.html")}


def test_lines_of_one_job_begin_with_its_label_and_stay_whole(capfd: pytest.CaptureFixture[str]) -> None:
    with labelled("[3] "):
        print("first\nsec", end="")
        print("ond", file=sys.stdout)
        print("no end", end="", file=sys.stderr)
    print("after")
    out, err = capfd.readouterr()
    assert out == "[3] first\n[3] second\nafter\n" and err == "[3] no end\n"


@pytest.mark.parametrize("launcher", ["joblib", "slurm"])
def test_a_launcher_that_is_not_there_is_refused_with_what_brings_it(
    launcher: str, command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("hydra_plugins"):
        pytest.skip("launchers are installed")
    monkeypatch.chdir(tmp_path)
    done = command("finetune", "-m", "+task=demo", f"hydra/launcher={launcher}")
    assert done.status == 2 and "pip install 'morenas[sweeps]'" in done.err and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_jobs_beside_each_other_leave_what_jobs_one_after_the_other_leave(launcher: str, launched: Launched) -> None:
    needs(launcher)
    seeds = f"seed={','.join(map(str, SEEDS))}"
    assert launched(seeds, "hydra.sweep.dir=alone/sweep")[0] == 0
    words = [f"hydra/launcher={launcher}", "hydra.sweep.dir=together/sweep", seeds]
    status, out, err = launched(*words, *(["hydra.launcher.n_jobs=2"] if launcher == "joblib" else []))
    assert status == 0, err
    alone, together = (launched.folder / name / "sweep" for name in ("alone", "together"))
    assert not differences(runs(alone), runs(together))
    assert f"| {len(SEEDS)} | test accuracy |" in out
    said = out if launcher == "joblib" else "".join(log.read_text() for log in together.rglob("*.out"))
    for number in range(len(SEEDS)):
        assert f"\n[{number}] finetune: " in said
    again = launched(*words)
    assert again[0] == 0 and "finetune: " not in again[1]
    assert not differences(runs(alone), runs(together))


@pytest.mark.slow
def test_a_job_that_fails_beside_others_is_told_and_they_are_run(launched: Launched) -> None:
    needs("joblib")
    words = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep", "training.batch_size=0,8"]
    status, _, err = launched(*words)
    assert status == 2 and err.count("morenas: error: job 0: ") == 1 and "not all jobs are complete" in err
    assert len(list(launched.folder.glob("sweep/*/results.json"))) == 1 and "Traceback" not in err


@pytest.mark.slow
def test_nothing_that_a_yaml_file_names_runs_where_a_launcher_sends_a_job(launched: Launched) -> None:
    needs("joblib")
    (launched.folder / "not_mine.py").write_text("from pathlib import Path\n(Path(__file__).parent / 'ran').touch()\n")
    (launched.folder / "experiment").mkdir()
    (launched.folder / "experiment" / "mine.yaml").write_text("# @package _global_\nplugins: [not_mine]\n")
    words = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.searchpath=[file://.]", "experiment=mine"]
    status, _, err = launched(*words, "seed=0,1")
    assert status == 2 and "a YAML file there sets plugins" in err
    assert not (launched.folder / "ran").exists()
    launched(*words, "plugins=[not_mine]", "seed=0,1", "training.max_steps=1")
    assert (launched.folder / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["submitit_local", "slurm"])
def test_a_preempted_job_is_queued_again_and_goes_on(launcher: str, launched: Launched) -> None:
    """As SLURM does it: SIGUSR2, and then the same job once more."""
    needs(launcher)
    words = ["training.max_steps=60", "training.evals=20", "seed=5,6"]
    assert launched(*words, "hydra.sweep.dir=alone/sweep")[0] == 0
    process = launched.start(*words, "hydra.sweep.dir=together/sweep", f"hydra/launcher={launcher}")
    job = launched.folder / "together" / "sweep" / "0-files-seed5"
    while not list(job.glob("checkpoints/*/*/manifest.json")):
        assert process.poll() is None and not (job / "results.json").exists()
        time.sleep(0.02)
    os.kill(worker(job), signal.SIGUSR2)
    _, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    assert ["this job is preempted" in log.read_text() for log in job.parent.rglob("*log.err")].count(True) == 1
    (said,) = (text for log in job.parent.rglob("*log.out") if "[0] " in (text := log.read_text()))
    assert said.count("Requeued job") == said.count("[0] Job 0 goes on") == 1 and "going on after" in said
    assert not differences(runs(launched.folder / "alone" / "sweep"), runs(job.parent))


@pytest.mark.slow
def test_slurm_is_asked_for_what_the_preset_says(launched: Launched) -> None:
    needs("slurm")
    words = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu", "hydra.launcher.mem_gb=8", "training.max_steps=1"]
    assert launched(*words, "seed=0,1", "hydra.sweep.dir=sweep")[0] == 0
    (script,) = (launched.folder / "slurm").glob("*.sbatch")
    asked = {line.removeprefix("#SBATCH --") for line in script.read_text().splitlines()}
    assert {"array=0-1%2", "cpus-per-task=4", "gpus-per-node=1", "mem=8GB", "partition=gpu", "time=240"} <= asked
    assert {"signal=USR2@120", "job-name=morenas", "open-mode=append"} <= asked
    assert len(list(launched.folder.glob("sweep/*/results.json"))) == 2


def worker(job: Path) -> int:
    """The process that a job runs in: it holds the lock of the job's directory."""
    place = str(job / "checkpoints" / "lock")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(os.readlink(one) == place for one in (process / "fd").iterdir()):
                return int(process.name)
    raise AssertionError("no process works there")
