"""The W&B run of a phase: what is written where, offline, and what a server out of reach leaves."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import wandb
from PIL import Image

from morenas.base.errors import InputError
from morenas.space import Architecture, ModuleShape
from morenas.tracking import TrackedRun
from morenas.tracking.trackers import Trackers, build_trackers
from morenas.tracking.wandb import WandbTracker, _mode_of_files, choose_mode

ARCHITECTURE = Architecture(
    "tiny",
    "cyclic",
    {f"layer.{depth}.{kind}": ModuleShape(2, depth + 1, 16, 24) for depth in range(2) for kind in ("query", "value")},
    0.1,
)


def build(directory: Path, mode: str) -> Trackers:
    run = TrackedRun(directory, "a run", {"seed": 41}, "search")
    trackers = build_trackers(run, "wandb", mode=mode, project="tests")
    trackers.open()
    return trackers


def written(directory: Path) -> bytes:
    """The record that ``wandb sync`` sends."""
    wandb.teardown()  # its service process may write on after ``finish``
    (path,) = (directory / "wandb").glob("offline-run-*/*.wandb")
    return path.read_bytes()


@pytest.fixture
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr("morenas.tracking.wandb.SILENT", set())
    for name in ("WANDB_MODE", "WANDB_DISABLED", "WANDB_API_KEY", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", os.devnull)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()  # it reads the environment once
    _mode_of_files.cache_clear()
    yield
    _mode_of_files.cache_clear()
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
def test_online_that_does_not_answer_is_said_once_and_the_run_is_kept_offline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        build(tmp_path / name, "online").close(failed=False)
        assert list((tmp_path / name / "wandb").glob("offline-run-*"))
    said = capsys.readouterr().out
    assert said.count("http://127.0.0.1:9 does not answer; this run is kept offline") == 2


@pytest.mark.usefixtures("no_login")
def test_a_login_that_w_and_b_refuses_leaves_the_run_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = wandb.init

    def refuse(**settings: Any) -> Any:
        if settings["mode"] == "online":
            raise wandb.errors.CommError("the project\nis not yours")
        return begin(**settings)

    monkeypatch.setattr("morenas.tracking.wandb.choose_mode", lambda mode: "online")
    monkeypatch.setattr("wandb.init", refuse)
    build(tmp_path, "online").close(failed=False)
    said = capsys.readouterr().out
    assert "CommError: the project is not yours; this run is kept offline" in said and "wandb sync" in said
    assert list((tmp_path / "wandb").glob("offline-run-*"))


class Server:
    """Takes connections, and answers by ``answer``, or never."""

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        self.door = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.door.getsockname()[1]}"
        self.answer, self.guests = answer, []  # type: ignore[var-annotated]
        Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                guest, _ = self.door.accept()
                self.guests.append(guest)
                Thread(target=self.answer, args=(guest,), daemon=True).start()


def silent(guest: socket.socket) -> None:
    """Never a word."""


def dripping(guest: socket.socket) -> None:
    """A byte at a time, and never the end of a line."""
    with contextlib.suppress(OSError):
        while True:
            guest.sendall(b"H")
            time.sleep(0.2)


def gateway(guest: socket.socket) -> None:
    """A proxy whose server is gone."""
    guest.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")


def refusing(guest: socket.socket) -> None:
    """W&B's own answer to a question without a key."""
    guest.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.usefixtures("no_login")
def test_a_server_that_answers_once_and_then_hangs_costs_five_seconds_once_and_the_run_is_kept_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def first_alone(guest: socket.socket) -> None:
        asked.append(guest)
        if len(asked) == 1:
            refusing(guest)

    monkeypatch.setenv("WANDB_BASE_URL", Server(first_alone).url)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    wandb.teardown()
    wandb.setup()
    for name in ("one", "two"):
        begun = time.monotonic()
        trackers = build(tmp_path / name, "auto")
        assert time.monotonic() - begun < (7 if name == "one" else 3)  # the machine may be busy with other things
        trackers.notify = pytest.fail
        trackers.start("search", 0)
        trackers.log("search", 1, {"search/lower_loss": 0.5})
        trackers.close(failed=False)
        assert written(tmp_path / name)
    wandb.teardown()


@pytest.mark.usefixtures("no_login")
@pytest.mark.parametrize(
    ("answer", "mode"), [(silent, "offline"), (dripping, "offline"), (gateway, "offline"), (refusing, "online")]
)
def test_a_server_that_takes_connections_and_says_nothing_costs_five_seconds_once(
    answer: Callable[[socket.socket], None], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(answer)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    wandb.teardown()
    wandb.setup()
    begun = time.monotonic()
    assert choose_mode("auto") == mode
    assert time.monotonic() - begun < 5
    if mode == "offline":
        asked = len(server.guests)
        assert choose_mode("online") == "offline" and len(server.guests) == asked


@pytest.mark.usefixtures("no_login")
@pytest.mark.parametrize("wanted", ["auto", "online", "offline"])
@pytest.mark.parametrize(
    ("name", "value", "mode"),
    [
        ("WANDB_MODE", "disabled", "disabled"),
        ("WANDB_MODE", "dryrun", "offline"),
        ("WANDB_MODE", "offline", "offline"),
        ("WANDB_DISABLED", "true", "disabled"),
        ("WANDB_DISABLED", "1", "disabled"),
        ("settings", "disabled", "disabled"),
        ("settings", "offline", "offline"),
    ],
)
def test_what_forbids_w_and_b_outside_is_obeyed_whatever_the_mode(
    wanted: str,
    name: str,
    value: str,
    mode: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setattr("morenas.tracking.wandb._answers", lambda url: True)
    if name == "settings":  # what ``wandb offline`` and ``wandb disabled`` write
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("WANDB_DIR")
        (tmp_path / "wandb").mkdir()
        (tmp_path / "wandb" / "settings").write_text(f"[default]\nmode = {value}\n")
    else:
        monkeypatch.setenv(name, value)
    wandb.teardown()
    assert choose_mode(wanted) == mode
    assert ("in spite of" in capsys.readouterr().out) == (wanted not in ("auto", mode))


@pytest.mark.usefixtures("no_login")
@pytest.mark.parametrize("value", ["", "false", "0", "online"])
def test_what_forbids_nothing_changes_nothing(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_MODE" if value == "online" else "WANDB_DISABLED", value)
    monkeypatch.setattr("morenas.tracking.wandb._answers", lambda url: True)
    wandb.teardown()
    assert choose_mode("auto") == "online"


@pytest.mark.usefixtures("no_login")
def test_a_disabled_run_leaves_nothing_of_w_and_b(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    wandb.teardown()
    trackers = build(tmp_path / "run", "auto")
    trackers.notify = pytest.fail
    trackers.start("search", 0)
    trackers.log("search", 1, {"search/lower_loss": 0.5})
    trackers.architecture(ARCHITECTURE)
    trackers.summary({"adapter_params": 1})
    trackers.artifact(tmp_path / "run", "adapter")
    trackers.close(failed=False)
    assert not (tmp_path / "run" / "wandb").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tags": ["fine", "t" * 80]}, r"tags: 'tttttttttttttttttttt' has 80 characters; W&B takes 1 to 64"),
        ({"tags": [""]}, "tags: '' has 0 characters"),
        ({"group": "g" * 150}, "group: has 150 characters; W&B takes 1 to 128"),
        ({"project": "p" * 129}, "project: has 129 characters"),
        ({"project": "a/b:c"}, "project=a/b:c: W&B takes no / : in it"),
    ],
    ids=str,
)
def test_names_that_w_and_b_does_not_take_are_refused_by_their_setting(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        WandbTracker(**settings)


@pytest.mark.usefixtures("no_login")
@pytest.mark.parametrize(("machine", "login"), [("127.0.0.1:9", True), ("api.wandb.ai", False)])
def test_auto_is_online_with_a_key_for_this_server_only(
    machine: str, login: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "netrc").write_text(f"machine {machine} login user password {'k' * 40}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert choose_mode("auto") == "offline"
    assert ("http://127.0.0.1:9 does not answer" in capsys.readouterr().out) == login
    monkeypatch.setattr("morenas.tracking.wandb.SILENT", set())
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
