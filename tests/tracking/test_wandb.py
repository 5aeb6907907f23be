"""The W&B run of a phase: what is written where, offline, and what a server out of reach leaves."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from PIL import Image

from morenas.space import Architecture, ModuleShape
from morenas.tracking import TrackedRun
from morenas.tracking.trackers import Trackers, build_trackers
from morenas.tracking.wandb import choose_mode

ARCHITECTURE = Architecture(
    "tiny",
    "cyclic",
    {f"layer.{depth}.{kind}": ModuleShape(2, depth + 1, 16, 24) for depth in range(2) for kind in ("query", "value")},
    0.1,
)


def build(directory: Path, mode: str) -> Trackers:
    return build_trackers(TrackedRun(directory, "a run", {"seed": 41}, "search"), "wandb", mode=mode, project="tests")


def written(directory: Path) -> bytes:
    """The record that ``wandb sync`` sends."""
    wandb.teardown()  # its service process may write on after ``finish``
    (path,) = (directory / "wandb").glob("offline-run-*/*.wandb")
    return path.read_bytes()


@pytest.fixture
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", os.devnull)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()  # it reads the environment once
    yield
    wandb.teardown()


def test_the_record_holds_metrics_summary_config_and_artifacts(tmp_path: Path) -> None:
    trackers = build(tmp_path, "offline")
    trackers.notify = pytest.fail
    tracker: Any = trackers.others[0]
    assert (tracker.run.name, dict(tracker.run.config)) == ("a run", {"seed": 41})
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"peft_type": "MORE"}')
    trackers.start("search", 0)
    for step in (1, 2):
        trackers.log("search", step, {"search/lower_loss": 1 / step})
    trackers.architecture(ARCHITECTURE)
    trackers.summary({"adapter_params": 4321})
    trackers.artifact(tmp_path / "adapter", "adapter")
    trackers.close(failed=False)
    record = written(tmp_path)
    for said in (
        b"search/lower_loss",
        b"search/step",
        b"adapter_params",
        b"4321",
        b"architecture.json",
        b"adapter_config.json",
        b"architecture/heatmap",
        b"architecture/table",
    ):
        assert said in record, said


def test_the_table_has_a_row_for_every_adapter_and_the_heat_map_is_a_picture(tmp_path: Path) -> None:
    trackers = build(tmp_path, "offline")
    trackers.architecture(ARCHITECTURE)
    trackers.close(failed=False)
    (folder,) = (tmp_path / "wandb").glob("offline-run-*/files/media")
    (path,) = folder.rglob("*.table.json")
    table = json.loads(path.read_text())
    shapes = {row[0]: tuple(row[1:3]) for row in table["data"]}
    assert shapes == ARCHITECTURE.shapes() and table["columns"][:3] == ["module", "nblocks", "blk_r"]
    (picture,) = folder.rglob("*.png")
    with Image.open(picture) as image:
        assert min(image.size) > 100 and len(image.convert("L").getcolors(2**16) or ()) > 10


def test_a_closed_run_leaves_no_run_behind_and_the_next_one_is_its_own(tmp_path: Path) -> None:
    ids = set()
    for name in ("one", "two"):
        trackers = build(tmp_path / name, "offline")
        run: Any = trackers.others[0]
        ids.add(run.run.id)
        trackers.close(failed=name == "one")
        assert wandb.run is None
    assert len(ids) == 2
    assert all(list((tmp_path / name / "wandb").glob("offline-run-*")) for name in ("one", "two"))


@pytest.mark.usefixtures("no_login")
def test_auto_without_a_login_is_offline_and_says_how_to_send_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trackers = build(tmp_path / "run", "auto")
    trackers.close(failed=False)
    (sync,) = [line for line in capsys.readouterr().out.splitlines() if "wandb sync" in line]
    assert Path(sync.split("wandb sync ")[1]).is_relative_to(tmp_path / "run")


@pytest.mark.usefixtures("no_login")
def test_online_that_does_not_answer_is_said_once_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trackers = build(tmp_path, "online")
    said = capsys.readouterr().out
    assert said.count("WandbTracker failed") == 1 and "http://127.0.0.1:9 does not answer" in said
    trackers.start("search", 0)
    trackers.log("search", 1, {"search/lower_loss": 0.5})
    trackers.close(failed=False)
    assert (tmp_path / "search" / "metrics.jsonl").read_text() and not capsys.readouterr().out


@pytest.mark.usefixtures("no_login")
@pytest.mark.parametrize(("machine", "login"), [("127.0.0.1:9", True), ("api.wandb.ai", False)])
def test_auto_is_online_with_a_key_for_this_server_only(
    machine: str, login: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "netrc").write_text(f"machine {machine} login user password {'k' * 40}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert choose_mode("auto") == "offline"
    assert ("http://127.0.0.1:9 does not answer" in capsys.readouterr().out) == login
    monkeypatch.setattr("morenas.tracking.wandb._answers", lambda url: True)
    assert choose_mode("auto") == ("online" if login else "offline")


@pytest.mark.usefixtures("no_login")
def test_auto_asks_no_question_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    code = "from morenas.tracking.wandb import choose_mode; assert choose_mode('auto') == 'offline'"
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SILENT"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    try:
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
