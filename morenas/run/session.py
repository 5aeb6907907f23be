"""What every run has: its data, model, measurements and trackers. What it does with them is its stages' business.

Every phase leaves its outcome in the run directory before the next begins and finds it there when the run is resumed,
so the phases of a run can simply be called again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import torch

from morenas.base.errors import InputError
from morenas.base.files import read_object, write_json
from morenas.models import target_linears
from morenas.models.heads import pretrained_parameters
from morenas.run.base_model import BaseModel
from morenas.run.config import RunConfig
from morenas.run.data import EncodedTask
from morenas.run.devices import resolve_device
from morenas.run.directory import RunDirectory, plain
from morenas.run.needs import task_spec
from morenas.run.phases import Meter
from morenas.run.sections import own_settings
from morenas.tasks.load import load_task
from morenas.tasks.read import Checked
from morenas.tracking.observer import ConsoleObserver
from morenas.tracking.tracker import TrackedRun
from morenas.tracking.trackers import TrackedObserver, Trackers, build_trackers


class Session:
    """One run at work.

    Attributes:
        config: What the user set.
        directory: Where it leaves what it makes.
        trackers: Where metrics go.
        observer: Told of phases, steps and messages; hands metrics on to the trackers.
        device: "cpu", "cuda:N" or "mps".
        meter: Measures phases.
        task: Data as text.
        data: Data as token ids.
        base: The pretrained model.
        fingerprint: Of its weights.
        model_parameters: How many it has, its head not counted.
    """

    def __init__(
        self,
        config: RunConfig,
        directory: RunDirectory,
        checked: Checked,
        trackers: Trackers,
        console: ConsoleObserver,
    ) -> None:
        datasets.disable_progress_bars()
        self.config, self.directory, self.trackers = config, directory, trackers
        self.device = resolve_device(config.device)
        self.meter = Meter(directory.phases, self.device)
        self.observer = TrackedObserver(console, trackers, self.meter.beat)
        set_threads(config.threads)
        with self.meter.phase("prepare"):
            self.task = load_task(task_spec(config), config.seed, checked)
            self.base = BaseModel(config, self.task, self.device)
            pretrained = self.base.get()
            self.fingerprint = pretrained.fingerprint
            self.data = EncodedTask(self.task, pretrained.tokenizer)
            self.data.check_texts(checked)
        self._check_inputs({"data": self.task.provenance["fingerprint"], "model": self.fingerprint})
        for note in (*self.task.notes, *pretrained.notes):
            self.observer.message(note)
        self.model_parameters = pretrained_parameters(pretrained.model, pretrained.head)

    def targets(self, target_modules: Any, exclude_modules: Any) -> dict[str, tuple[int, int]]:
        """Linear layers that adapters may go to, name to ``(in, out)``.

        Raises:
            InputError: If there are none, or a name fits none.
        """
        pretrained = self.base.get()
        model, head = pretrained.model, pretrained.head
        found = target_linears(model, _names(target_modules), head)
        if exclude_modules is not None:
            excluded = target_linears(model, _names(exclude_modules), head)
            found = {name: shape for name, shape in found.items() if name not in excluded}
        if not found:
            raise InputError(f"exclude_modules={exclude_modules!r} leaves none of target_modules={target_modules!r}.")
        return found

    def _check_inputs(self, fingerprints: dict[str, str]) -> None:
        """Note what the run works on; refuse to go on with anything else, such as a test set that was trained on.

        Raises:
            InputError: If the data or the model has changed since the run began.
        """
        path = self.directory.inputs
        if not path.exists():
            write_json(path, fingerprints)
        began_with = read_object(path, "fingerprints", dict.fromkeys(fingerprints, str))
        for what, fingerprint in fingerprints.items():
            if began_with[what] != fingerprint:
                raise InputError(
                    f"{self.directory.path}: the {what} is not what this run began with (fingerprint "
                    f"{fingerprint[:12]}, then {began_with[what][:12]}); restore it, or start a new run."
                )


@contextmanager
def session(
    command: str, config: RunConfig, directory: RunDirectory, checked: Checked, words: str = ""
) -> Iterator[Session]:
    """A run at work, whose trackers are closed whatever happens.

    Args:
        command: "search" or "finetune".
        checked: The task's examples.
        words: What sets the run apart, in short, for its name on dashboards.
    """
    run = TrackedRun(directory.path, run_name(config, words), plain(config), command)
    name, settings = tracker_settings(config)
    trackers = build_trackers(run, name, **settings)
    console, failed = ConsoleObserver(), True
    try:
        yield Session(config, directory, checked, trackers, console)
        failed = False
    finally:
        console.close()
        trackers.close(failed)


def tracker_settings(config: RunConfig) -> tuple[str, dict[str, Any]]:
    """The tracker that is chosen, and its own settings."""
    name, own = config.tracking.name, own_settings(config.tracking)
    if name != "wandb":
        return name, own
    wandb = {**vars(config.tracking.wandb), **own}
    return ("local", {}) if wandb["mode"] == "disabled" else (name, wandb)


def run_name(config: RunConfig, words: str) -> str:
    """A run's name on dashboards: task, model, a few words and the seed."""
    model = Path(config.model.name_or_path).name
    return "-".join(part for part in (config.task.name.replace("/", "-"), model, words, f"seed{config.seed}") if part)


def set_threads(threads: int | None) -> None:
    """Let torch use so many CPU threads; None leaves the number to torch.

    Raises:
        InputError: If there are none.
    """
    if threads is None:
        return
    if threads < 1:
        raise InputError(f"threads={threads}: must be at least 1, or null for torch's choice.")
    torch.set_num_threads(threads)


def _names(modules: Any) -> str | list[str]:
    if not isinstance(modules, (str, list)):
        raise InputError(
            f"Target modules {modules!r}: give all-linear, auto, a regular expression, or a list of names."
        )
    return modules if isinstance(modules, str) else [str(name) for name in modules]
