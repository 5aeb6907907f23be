"""What a search run and a fine-tune run share: data and model, fine-tuning by a method, results.

Every phase leaves its outcome in the run directory before the next begins and finds it there when the run is resumed,
so the phases of a run can simply be called again.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import nn

from morenas.base.errors import InputError
from morenas.base.files import read_json, write_json
from morenas.base.hub import require_hub
from morenas.base.seeds import derive
from morenas.finetune.attach import attach
from morenas.finetune.evaluate import ClassifierScorer, Scorer
from morenas.finetune.language import LanguageScorer
from morenas.finetune.loop import FinetuneData, finetune
from morenas.finetune.methods import Method, method_name
from morenas.finetune.saving import save_adapter
from morenas.finetune.settings import TrainingSettings
from morenas.models import target_linears
from morenas.models.source import hub_need
from morenas.run.base_model import BaseModel
from morenas.run.devices import describe_device, resolve_device
from morenas.run.directory import RunDirectory, plain
from morenas.run.phases import Meter
from morenas.run.results import git_commit, versions, write_results
from morenas.run.schema import RunConfig
from morenas.search.outcome import Origin
from morenas.tasks.encode import encode
from morenas.tasks.load import Task, load_task
from morenas.tasks.prompts import encode_records
from morenas.tasks.spec import TaskSpec
from morenas.tracking.observer import ConsoleObserver
from morenas.tracking.report import write_report
from morenas.tracking.table import print_closing
from morenas.tracking.trackers import TrackedObserver, Trackers, build_trackers

GENERATED = "generated_accuracy"  # the metric that costs most


@dataclass(frozen=True)
class Encoded:
    """Token ids of every split but the test sets."""

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
        self._encoded_tests: dict[str, datasets.Dataset] = {}
        with self.meter.phase("prepare"):
            self.task = load_task(spec, config.seed)
            self.base = BaseModel(config, self.task, self.device)
            pretrained = self.base.get()
            self.tokenizer, self.fingerprint = pretrained.tokenizer, pretrained.fingerprint
            self.encoded = self._encode(self.task)
            self._check_tests_fit()
        self._check_inputs({"data": self.task.provenance["fingerprint"], "model": self.fingerprint})
        for note in pretrained.notes:
            self.observer.message(note)
        self.training = training_settings(config, self.device)
        self.model_parameters = Origin.of(pretrained.model, pretrained.head).parameters

    def targets(self, target_modules: Any, exclude_modules: Any) -> dict[str, tuple[int, int]]:
        """Linear layers that adapters may go to, name to ``(in, out)``."""
        pretrained = self.base.get()
        model, head = pretrained.model, pretrained.head
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
        pretrained = self.base.take()
        with self.meter.phase(phase) as measured:
            model = attach(
                pretrained.model, method, targets, pretrained.head, derive(self.config.seed, phase), self.final_steps()
            )
            data = self._finetune_data()
            checkpoints = self.directory.checkpoints / phase
            result = finetune(model, data, settings, checkpoints, self.observer, pretrained.head, phase)
            measured.steps = result.steps
        with self.meter.phase("evaluate"):
            tests = self._read_tests(model)
        save_adapter(model, adapter)
        row = {
            "name": method_name(method),
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
        main = next(iter(rows[0]["metrics"]))
        value = rows[0]["metrics"]["select"][self.task.select_metric]
        results = {
            "status": "complete",
            "kind": kind,
            "task": self.task.spec.name,
            "task_kind": self.task.spec.kind,
            "metric": self.task.metric,
            "split": main,
            "model": {
                "name": self.config.model.name_or_path,
                "parameters": self.model_parameters,
                "fingerprint": self.fingerprint,
                "dtype": self.config.model.dtype.value,
                "quantization": self.config.model.quantization.value,
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

    def _check_tests_fit(self) -> None:
        """Notice before the search a record that would be refused as too long when the test sets are read, after it."""
        if self.task.spec.causal:
            for name, test in self.task.tests.items():
                self._test_tokens(name, test)

    def _finetune_data(self) -> FinetuneData:
        """Checkpoints are chosen without generating, unless that is what they are chosen by."""
        names = [name for name in self.task.spec.metrics if name != GENERATED]
        score = self._scorer(self.task.spec, tuple(dict.fromkeys([*names, self.task.select_metric])))
        return FinetuneData(
            self.encoded.final_train, self.encoded.select, self.tokenizer, score, self.task.select_metric
        )

    def _read_tests(self, model: nn.Module) -> dict[str, dict[str, float]]:
        """Metrics by test set; of several parts of a task their mean comes first."""
        settings, tests = self.training, {}
        for name, test in self.task.tests.items():
            spec = self.task.test_specs[name]
            score = self._scorer(spec, spec.metrics)
            tests[name] = score(model, self._test_tokens(name, test), settings.eval_batch_size, settings.bf16)
        if self.task.spec.mix is None:
            return tests
        mean = {metric: sum(test[metric] for test in tests.values()) / len(tests) for metric in self.task.spec.metrics}
        return {"mean": mean, **tests}

    def _scorer(self, spec: TaskSpec, metrics: Sequence[str]) -> Scorer:
        if spec.causal:
            return LanguageScorer(self.tokenizer, metrics, spec.answer, spec.max_new_tokens)
        return ClassifierScorer(self.tokenizer, self.task.metrics)

    def _encode(self, task: Task) -> Encoded:
        return Encoded(
            self._tokens(task.search_train, task.spec),
            self._tokens(task.search_val, task.spec),
            self._tokens(task.final_train(), task.spec),
            self._select_tokens(task),
        )

    def _select_tokens(self, task: Task) -> datasets.Dataset:
        """What is scored needs room after its prompts: for every choice, and where answers are generated for those."""
        generates = task.select_metric == GENERATED
        spec = task.spec if generates or not task.spec.causal else replace(task.spec, max_new_tokens=1)
        return self._tokens(task.select, spec, train=False)

    def _test_tokens(self, name: str, test: datasets.Dataset) -> datasets.Dataset:
        """A test set's, made once whatever the number of methods."""
        if name not in self._encoded_tests:
            self._encoded_tests[name] = self._tokens(test, self.task.test_specs[name], train=False)
        return self._encoded_tests[name]

    def _tokens(self, dataset: datasets.Dataset, spec: TaskSpec, train: bool = True) -> datasets.Dataset:
        if spec.causal:
            return encode_records(dataset, self.tokenizer, spec, train)
        return encode(dataset, self.tokenizer, spec.text_columns, spec.max_length)


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
    for key in ("kind", "source", "answer", "prompt"):
        task[key] = task[key].value
    for key in ("text_columns", "label_names", "metrics", "choices"):
        task[key] = None if task[key] is None else tuple(task[key])
    return TaskSpec(**task)


def training_settings(config: RunConfig, device: str) -> TrainingSettings:
    """The training section of a config as the training package takes it."""
    elsewhere = ("init", "gradient_checkpointing")
    values = {key: value for key, value in asdict(config.training).items() if key not in elsewhere}
    return TrainingSettings(**values, seed=config.seed, device=device)


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
