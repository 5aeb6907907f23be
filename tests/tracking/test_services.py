"""TensorBoard, Trackio, MLflow, Aim, Comet and SwanLab: what a run sends is in their files, with no account."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import SEARCH_WORDS, CommandLine, read, task_words

from morenas.base.errors import InputError
from morenas.base.registry import registry
from morenas.space import Architecture, ModuleShape
from morenas.tracking import TrackedRun, accelerate
from morenas.tracking.accelerate import flat
from morenas.tracking.trackers import build_trackers

SERVICES = ("tensorboard", "trackio", "mlflow", "aim", "comet", "swanlab")
ARCHITECTURE = Architecture(
    "tiny",
    "cyclic",
    {f"layer.{depth}.{kind}": ModuleShape(2, depth + 1, 16, 24) for depth in range(2) for kind in ("query", "value")},
    0.1,
)
CONFIG = {"seed": 3, "task": {"name": "demo", "metrics": ["accuracy"], "mix": None}}


def send(name: str, directory: Path, first: int = 1, failed: bool = False) -> None:
    """All that a run sends to its trackers."""
    trackers = build_trackers(TrackedRun(directory, "demo-tiny-seed3", CONFIG, "search"), name)
    trackers.notify = pytest.fail
    assert len(trackers.others) == 1
    trackers.start("search", first - 1)
    for step in (first, first + 1):
        trackers.log("search", step, {"search/lower_loss": 1 / step})
    trackers.start("finetune", 0)
    trackers.log("finetune", 1, {"finetune/loss": 0.25})
    trackers.architecture(ARCHITECTURE)
    trackers.summary({"metric": 0.75, "adapter_params": 4321, "note": "of another kind"})
    trackers.artifact(directory / "adapter", "adapter")
    trackers.close(failed)


def test_a_configuration_is_flat_and_of_scalars() -> None:
    assert dict(flat(CONFIG)) == {"seed": 3, "task.name": "demo", "task.metrics": '["accuracy"]', "task.mix": "null"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_is_not_installed_is_refused_by_its_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerate, "find_spec", lambda module: None)
    package = registry("tracker").get(name).package
    with pytest.raises(InputError) as error:
        build_trackers(TrackedRun(Path("run"), "name", {}, "search"), name)
    assert f"tracking={name}: needs the package {package}, which" in str(error.value)
    assert f"; pip install {shlex.quote(package)}, or" in str(error.value)


def test_services_are_imported_when_a_run_begins() -> None:
    code = f"""
import sys
from morenas.base.registry import registry
found = [registry("tracker").settings(name) for name in {(*SERVICES, "wandb")}]
heavy = {{"torch", "accelerate", "matplotlib", "wandb", "comet_ml", *{SERVICES}}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name: str = request.param
    package = registry("tracker").get(name)
    if find_spec(package.module) is None:
        pytest.skip(f"{package.package} is not installed")
    for variable in ("TRACKIO_DIR", "MLFLOW_TRACKING_URI", "COMET_API_KEY", "SWANLAB_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    yield name


@pytest.mark.parametrize("installed", SERVICES, indirect=True)
def test_everything_a_run_sends_is_taken_and_kept_in_the_run_directory(
    installed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    send(installed, tmp_path / "run")
    files = [path for path in (tmp_path / "run" / installed).rglob("*") if path.is_file()]
    assert any(path.stat().st_size for path in files)
    assert not list((tmp_path / "cwd").iterdir())


@pytest.mark.parametrize("installed", ["tensorboard"], indirect=True)
def test_tensorboard_s_event_files_hold_curves_summary_picture_and_configuration(
    installed: str, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    send(installed, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("search/lower_loss")] == [(1, 1.0), (2, 0.5)]
    assert [(event.step, event.value) for event in events.Scalars("finetune/loss")] == [(1, 0.25)]
    assert [event.value for event in events.Scalars("summary/adapter_params")] == [4321]
    (picture,) = events.Images("architecture")
    assert picture.width > 100 and picture.encoded_image_string.startswith(b"\x89PNG")
    (settings,) = tmp_path.rglob("hparams.yml")
    assert "task.name: demo" in settings.read_text()


@pytest.mark.parametrize("installed", ["tensorboard"], indirect=True)
def test_a_resumed_run_goes_on_in_tensorboard_s_curves(installed: str, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    send(installed, tmp_path, failed=True)
    send(installed, tmp_path, first=3)
    curve = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("search/lower_loss")
    assert [event.step for event in curve] == [1, 2, 3, 4]


@pytest.mark.parametrize("installed", ["mlflow"], indirect=True)
def test_mlflow_s_store_holds_the_run_and_a_resumed_one_is_the_same(installed: str, tmp_path: Path) -> None:
    import mlflow

    send(installed, tmp_path, failed=True)
    send(installed, tmp_path, first=3)
    client: Any = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("morenas").experiment_id])
    history = client.get_metric_history(run.info.run_id, "search/lower_loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert run.info.run_name == "demo-tiny-seed3" and run.info.status == "FINISHED"
    assert run.data.metrics["summary/metric"] == 0.75 and run.data.params["task.name"] == "demo"
    assert list((tmp_path / "mlflow" / "artifacts").rglob("architecture.png"))


@pytest.mark.parametrize("installed", ["mlflow"], indirect=True)
def test_runs_of_a_sweep_keep_their_mlflow_stores_apart(installed: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        send(installed, tmp_path / name)
        assert (tmp_path / name / "mlflow" / "mlflow.db").exists() and "MLFLOW_TRACKING_URI" not in os.environ


@pytest.mark.parametrize("installed", ["tensorboard"], indirect=True)
def test_a_whole_run_reaches_tensorboard_and_trains_what_it_trains_without(
    installed: str, command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for tracking in (installed, "local"):
        words = [*task_words(tiny_task, tiny_model, tmp_path / tracking), *SEARCH_WORDS, f"tracking={tracking}"]
        done = command("search", *[word for word in words if word != "tracking=local" or tracking == "local"])
        assert done.status == 0 and "goes on without" not in done.out, done.err
    events = EventAccumulator(str(tmp_path / "tensorboard" / "tensorboard")).Reload()
    curves = set(events.Tags()["scalars"])
    results = read(tmp_path / "tensorboard" / "results.json")
    assert {"search/lower_loss", "finetune/loss", "summary/metric"} <= curves and events.Images("architecture")
    assert events.Scalars("summary/adapter_params")[0].value == results["methods"][0]["adapter_params"]
    one, other = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in (installed, "local"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_whose_tracker_is_not_installed_never_begins(
    command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerate, "find_spec", lambda module: None)
    words = [word for word in task_words(tiny_task, tiny_model, tmp_path / "run") if word != "tracking=local"]
    done = command("finetune", *words, "method=head", "tracking=comet")
    assert done.status == 2 and done.err.count("\n") == 1 and "pip install comet_ml" in done.err
    assert not (tmp_path / "run").exists()
