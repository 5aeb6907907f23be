"""What a search run and a fine-tune run share: data and model, fine-tuning by a method, results.

Every phase leaves its outcome in the run directory before the next begins and finds it there when the run is resumed,
so the phases of a run can simply be called again.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import nn

from morenas.devices import describe_device, resolve_device
from morenas.errors import InputError
from morenas.files import read_json, write_json
from morenas.hub import require_hub
from morenas.metering import Meter
from morenas.models import Pretrained, load_pretrained, target_linears
from morenas.models.source import hub_need
from morenas.results import git_commit, versions, write_results
from morenas.rundir import RunDirectory, plain
from morenas.schema import RunConfig
from morenas.seeds import derive
from morenas.tasks.encode import encode
from morenas.tasks.load import Task, load_task
from morenas.tasks.spec import TaskSpec
from morenas.tracking.observer import ConsoleObserver
from morenas.tracking.report import write_report
from morenas.tracking.table import print_closing
from morenas.tracking.trackers import TrackedObserver, Trackers, build_trackers
from morenas.training import FinetuneData, Method, TrainingSettings, attach, evaluate, finetune, save_adapter


@dataclass(frozen=True)
class Encoded:
    """Token ids of every split but the test sets, which are encoded when they are read."""

    search_train: datasets.Dataset
    search_val: datasets.Dataset
    final_train: datasets.Dataset
    select: datasets.Dataset


class Pipeline:
    """One run's data, model, measurements and trackers."""

    def __init__(
        self, config: RunConfig, directory: RunDirectory, trackers: Trackers, console: ConsoleObserver
    ) -> None:
        datasets.disable_progress_bars()
        self.config, self.directory, self.trackers = config, directory, trackers
        self.device = resolve_device(config.device)
        self.meter = Meter(directory.phases, self.device)
        self.observer = TrackedObserver(console, trackers, self.meter.beat)
        if config.threads is not None:
            if config.threads < 1:
                raise InputError(f"threads={config.threads}: must be at least 1, or null for torch's choice.")
            torch.set_num_threads(config.threads)
        spec = task_spec(config)
        require_hub(*(need for need in (spec.hub_need(), hub_need(config.model.name_or_path)) if need))
        with self.meter.phase("prepare"):
            self.task = load_task(spec, config.seed)
            self.pretrained = self.load_model()
            self.encoded = self._encode(self.task)
        self._check_inputs({"data": self.task.provenance["fingerprint"], "model": self.pretrained.fingerprint})
        for note in self.pretrained.notes:
            self.observer.message(note)
        self.training = training_settings(config, self.device)
        self.model_parameters = count_pretrained(self.pretrained)

    def load_model(self) -> Pretrained:
        """The pretrained model with its fresh head, the same every time."""
        model = self.config.model
        return load_pretrained(
            model.name_or_path,
            self.task.num_labels,
            self.task.label_names,
            self.task.spec.kind,
            derive(self.config.seed, "head"),
            model.attn_implementation,
        )

    @contextmanager
    def model_on_device(self) -> Iterator[nn.Module]:
        """The pretrained model where it computes; every fine-tune loads its own, so it is taken back afterwards."""
        model: nn.Module = self.pretrained.model
        try:
            yield model.to(self.device)
        finally:
            model.to("cpu")

    def targets(self, target_modules: Any, exclude_modules: Any) -> dict[str, tuple[int, int]]:
        """Linear layers that adapters may go to, name to ``(in, out)``."""
        model, head = self.pretrained.model, self.pretrained.head
        found = target_linears(model, _names(target_modules), head)
        if exclude_modules is not None:
            excluded = target_linears(model, _names(exclude_modules), head)
            found = {name: shape for name, shape in found.items() if name not in excluded}
        if not found:
            raise InputError(f"exclude_modules={exclude_modules!r} leaves none of target_modules={target_modules!r}.")
        return found

    def final_steps(self) -> int:
        """Optimizer steps of a final fine-tune."""
        return self.training.total_steps(len(self.encoded.final_train))

    def fit(
        self,
        method: Method,
        targets: dict[str, tuple[int, int]],
        phase: str,
        adapter: Path,
        learning_rate: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Fine-tune by a method, read the test sets once, save what was trained; a row of ``results.json``.

        Args:
            phase: Names the phase, its checkpoints and its metrics.
            adapter: Folder for what was trained.
            learning_rate: None for that of the training settings.
        """
        outcome = self.directory.checkpoints / f"{phase}.json"
        if outcome.exists():
            return dict(read_json(outcome, "phase outcome"))
        settings = TrainingSettings(
            **asdict(self.training) | ({} if learning_rate is None else {"learning_rate": learning_rate})
        )
        pretrained = self.load_model()
        with self.meter.phase(phase) as measured:
            model = attach(
                pretrained.model, method, targets, pretrained.head, derive(self.config.seed, phase), self.final_steps()
            )
            data = FinetuneData(
                self.encoded.final_train, self.encoded.select, pretrained.tokenizer, self.task.metrics, self.task.metric
            )
            checkpoints = self.directory.checkpoints / phase
            result = finetune(model, data, settings, checkpoints, self.observer, pretrained.head, phase)
            measured.steps = result.steps
        with self.meter.phase("evaluate"):
            tests = self._read_tests(model)
        save_adapter(model, adapter)
        row = {
            "name": method.name,
            "metrics": {**tests, "select": result.metrics},
            "adapter_params": result.adapter_params,
            "head_params": result.head_params,
            "params_fraction": result.adapter_params / self.model_parameters,
            "learning_rate": settings.learning_rate,
            "steps": result.steps,
            "seconds": measured.seconds,
            "details": {"best_step": result.best_step, **(details or {})},
        }
        write_json(outcome, row)
        return row

    def finish(self, kind: str, rows: list[dict[str, Any]], budget: dict[str, Any] | None = None) -> float:
        """Publish results, report and closing table; return the main metric on the select split."""
        main = next(iter(self.task.tests))
        value = rows[0]["metrics"]["select"][self.task.metric]
        results = {
            "status": "complete",
            "kind": kind,
            "task": self.task.spec.name,
            "metric": self.task.metric,
            "split": main,
            "model": {
                "name": self.config.model.name_or_path,
                "parameters": self.model_parameters,
                "fingerprint": self.pretrained.fingerprint,
            },
            "budget": budget,
            "methods": rows,
            "value": value,
            "phases": self.meter.rows(),
            "seed": self.config.seed,
            "data": self.task.provenance,
            "versions": versions(),
            "git_commit": git_commit(),
            "device": describe_device(self.device),
            "threads": torch.get_num_threads(),
            "command": shlex.join(["python", "-m", f"morenas.{kind}", *self.directory.saved_overrides()]),
        }
        self.trackers.summary(summary(results))
        self.trackers.artifact(self.directory.adapter, "adapter")
        write_report(self.directory.path, results)
        # Last: a run that has its results is complete, and is not gone on with.
        write_results(self.directory.results, results)
        self.directory.drop_checkpoints()
        print_closing(results, self.directory.path)
        return float(value)

    def _check_inputs(self, fingerprints: dict[str, str]) -> None:
        """Note what the run works on; refuse to go on with anything else, such as a test set that was trained on.

        Raises:
            InputError: If the data or the model has changed since the run began.
        """
        path = self.directory.inputs
        if not path.exists():
            write_json(path, fingerprints)
        began_with = read_json(path, "fingerprints")
        for what, fingerprint in fingerprints.items():
            if began_with[what] != fingerprint:
                raise InputError(
                    f"{self.directory.path}: the {what} is not what this run began with (fingerprint "
                    f"{fingerprint[:12]}, then {began_with[what][:12]}); restore it, or start a new run."
                )

    def _read_tests(self, model: nn.Module) -> dict[str, dict[str, float]]:
        settings, tokenizer = self.training, self.pretrained.tokenizer
        return {
            name: evaluate(
                model, self._tokens(test), tokenizer, self.task.metrics, settings.eval_batch_size, settings.bf16
            )
            for name, test in self.task.tests.items()
        }

    def _encode(self, task: Task) -> Encoded:
        return Encoded(
            self._tokens(task.search_train),
            self._tokens(task.search_val),
            self._tokens(task.final_train()),
            self._tokens(task.select),
        )

    def _tokens(self, dataset: datasets.Dataset) -> datasets.Dataset:
        spec = self.task.spec
        return encode(dataset, self.pretrained.tokenizer, spec.text_columns, spec.max_length)


@contextmanager
def pipeline(command: str, config: RunConfig, directory: RunDirectory, budget: str = "") -> Iterator[Pipeline]:
    """A pipeline whose trackers are closed whatever happens.

    Args:
        command: "search" or "finetune".
        budget: Short words for the run's name on dashboards.
    """
    wanted = config.tracking.wandb
    trackers = build_trackers(
        directory.path,
        wanted.mode.value,
        name=run_name(config, budget),
        config=plain(config),
        project=wanted.project,
        entity=wanted.entity,
        group=wanted.group,
        tags=list(wanted.tags),
        job_type=command,
    )
    console, failed = ConsoleObserver(), True
    try:
        yield Pipeline(config, directory, trackers, console)
        failed = False
    finally:
        console.close()
        trackers.close(failed)


def run_name(config: RunConfig, budget: str) -> str:
    """A run's name on dashboards: task, model, budget and seed."""
    model = Path(config.model.name_or_path).name
    return "-".join(part for part in (config.task.name.replace("/", "-"), model, budget, f"seed{config.seed}") if part)


def task_spec(config: RunConfig) -> TaskSpec:
    """The task section of a config as the tasks package takes it."""
    task = asdict(config.task)
    for key in ("kind", "source"):
        task[key] = task[key].value
    for key in ("text_columns", "label_names", "metrics"):
        task[key] = None if task[key] is None else tuple(task[key])
    return TaskSpec(**task)


def training_settings(config: RunConfig, device: str) -> TrainingSettings:
    """The training section of a config as the training package takes it."""
    values = {key: value for key, value in asdict(config.training).items() if key != "init"}
    return TrainingSettings(**values, seed=config.seed, device=device)


def count_pretrained(pretrained: Pretrained) -> int:
    """Parameters of the pretrained model, its head not counted."""
    heads = tuple(f"{name}." for name in pretrained.head)
    return sum(p.numel() for name, p in pretrained.model.named_parameters() if not name.startswith(heads))


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """What a dashboard sorts runs by: our method's figures, and those of what it is compared with under its name."""
    ours, *compared = results["methods"]
    seconds = {f"seconds/{phase['name']}": phase["seconds"] for phase in results["phases"]}
    metrics = {f"{split}/{name}": value for split, values in ours["metrics"].items() for name, value in values.items()}
    return {
        **metrics,
        **{
            f"{row['name']}/{split}/{name}": value
            for row in compared
            for split, values in row["metrics"].items()
            for name, value in values.items()
        },
        "metric": ours["metrics"][results["split"]][results["metric"]],
        "adapter_params": ours["adapter_params"],
        "params_fraction": ours["params_fraction"],
        "seconds": sum(seconds.values()),
        **seconds,
    }


def _names(modules: Any) -> str | list[str]:
    if not isinstance(modules, (str, list)):
        raise InputError(
            f"Target modules {modules!r}: give all-linear, auto, a regular expression, or a list of names."
        )
    return modules if isinstance(modules, str) else [str(name) for name in modules]
