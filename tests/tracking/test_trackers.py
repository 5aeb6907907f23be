"""No dashboard can stop a run; W&B keeps what the issue of a run is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from morenas.base.errors import InputError
from morenas.base.registry import register, registry
from morenas.space import Architecture, ModuleShape
from morenas.tracking import TrackedRun, Tracker
from morenas.tracking.jsonl import JsonLines
from morenas.tracking.trackers import Trackers, build_trackers
from morenas.tracking.wandb import choose_mode

ARCHITECTURE = Architecture(
    "tiny",
    "cyclic",
    {f"layer.{i}.{name}": ModuleShape(2 * i + 1, 2, 16, 24) for i in range(2) for name in ("query", "value")},
    0.1,
    {"params": 1000, "request": {}},
    {},
)
RUN = TrackedRun(Path("run"), "name", {"seed": 0}, "search")


class Broken:
    """A tracker whose every method fails."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        def fail(*_: object) -> None:
            raise OSError("no route\nto host")

        return fail


def test_a_tracker_that_fails_is_reported_once_and_left_out(tmp_path: Path) -> None:
    shown: list[str] = []
    broken: Any = Broken()
    trackers = Trackers(replace(RUN, directory=tmp_path), JsonLines(tmp_path), [broken], shown.append)
    trackers.start("search", 0)
    for step in range(3):
        trackers.log("search", step, {})
    trackers.close(failed=False)
    assert shown == ["Broken failed (OSError: no route to host); the run goes on without it."]
    assert len((tmp_path / "search" / "metrics.jsonl").read_text().splitlines()) == 3


def offline(directory: Path) -> Trackers:
    run = TrackedRun(directory, "demo-tiny-lora32-seed0", {"seed": 0}, "search")
    trackers = build_trackers(run, "wandb", mode="offline", project="tests", group="sweep")
    trackers.open()
    return trackers


def test_wandb_offline_takes_everything_and_says_how_to_send_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trackers = offline(tmp_path)
    assert len(trackers.others) == 1
    shown: list[str] = []
    trackers.notify = shown.append
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    trackers.start("search", 0)
    trackers.log("search", 1, {"search/lower_loss": 0.5})
    trackers.architecture(ARCHITECTURE)
    trackers.summary({"metric": 0.9, "adapter_params": 10})
    trackers.artifact(tmp_path / "adapter", "adapter")
    trackers.close(failed=False)
    assert shown == []
    (sync,) = [line for line in capsys.readouterr().out.splitlines() if "wandb sync" in line]
    run = Path(sync.split("wandb sync ")[1])
    assert run.is_dir() and run.is_relative_to(tmp_path)
    assert list(run.glob("*.wandb"))
    media = {path.suffix for path in (run / "files" / "media").rglob("*") if path.is_file()}
    assert {".json", ".png"} <= media  # the table and the heat map


def test_a_resumed_run_is_the_same_run_at_wandb(tmp_path: Path) -> None:
    ids = []
    for _ in range(2):
        trackers = offline(tmp_path)
        tracker: Any = trackers.others[0]
        ids.append(tracker.run.id)
        trackers.close(failed=True)
    assert ids[0] == ids[1]


def test_a_start_that_fails_is_said_once_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no key")

    monkeypatch.setattr("wandb.init", refuse)
    trackers = offline(tmp_path)
    assert trackers.others == []
    assert capsys.readouterr().out == "WandbTracker failed (RuntimeError: no key); the run goes on without it.\n"
    trackers.start("search", 0)
    trackers.close(failed=False)


def test_local_leaves_the_json_lines_alone() -> None:
    assert build_trackers(RUN, "local").others == build_trackers(RUN).others == []


@dataclass
class Kept(Tracker):
    """Keeps what it is given.

    Attributes:
        label: Put before every step.
    """

    label: str = "step"
    seen: list[str] = field(default_factory=list)

    def open(self, run: TrackedRun) -> None:
        self.seen.append(f"{run.command} {run.name} {run.directory} {run.config['seed']}")

    def log(self, phase: str, step: int, metrics: Mapping[str, float]) -> None:
        self.seen.append(f"{self.label} {step} {metrics}")


@pytest.fixture
def mine() -> Iterator[None]:
    register("tracker", "mine", Kept)
    yield
    del registry("tracker")._targets["mine"]


@pytest.mark.usefixtures("mine")
def test_a_tracker_of_one_s_own_gets_the_run_and_its_settings_by_name(tmp_path: Path) -> None:
    trackers = build_trackers(replace(RUN, directory=tmp_path), "mine", label="at")
    trackers.start("search", 0)
    trackers.log("search", 1, {"search/loss": 0.5})
    trackers.architecture(ARCHITECTURE)
    trackers.close(failed=False)
    (kept,) = trackers.others
    assert isinstance(kept, Kept)
    assert kept.seen == [f"search name {tmp_path} 0", "at 1 {'search/loss': 0.5}"]


def test_an_object_or_a_place_stands_for_a_name() -> None:
    kept = Kept()
    assert build_trackers(RUN, kept).others == [kept]
    (found,) = build_trackers(RUN, f"{__name__}:Kept", label="at").others
    assert isinstance(found, Kept) and found.label == "at"


def test_trackers_are_opened_once_when_there_is_something_to_tell_them(tmp_path: Path) -> None:
    kept, unused = Kept(), Kept()
    build_trackers(replace(RUN, directory=tmp_path), unused).close(failed=True)
    trackers = build_trackers(replace(RUN, directory=tmp_path), kept)
    assert kept.seen == unused.seen == []
    for phase in ("search", "finetune"):
        trackers.start(phase, 0)
    trackers.close(failed=False)
    assert kept.seen == [f"search name {tmp_path} 0"]


@pytest.mark.parametrize(
    ("tracker", "settings", "said"),
    [
        ("wndb", {}, r"there is no such tracker \(did you mean 'wandb'\?\)"),
        ("tensorboard", {"project": "x"}, "tensorboard has no setting 'project'; it has none"),
        ("wandb", {"mode": "onlin"}, r"tracking.wandb.mode=onlin: choose from auto, .* \(did you mean 'online'\?\)"),
        (object(), {}, r"has no open, start, .*; a tracker is a subclass of morenas\.tracking\.Tracker"),
    ],
)
def test_what_is_no_tracker_is_refused(tracker: Any, settings: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        build_trackers(RUN, tracker, **settings)


def test_auto_is_offline_without_a_login_and_where_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", os.devnull)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert choose_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert choose_mode("auto") == "offline"
    assert choose_mode("online") == "offline"
