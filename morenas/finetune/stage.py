"""Fine-tuning as a stage of a run: fit by a method, read the test sets once, keep what was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import nn

from morenas.base import processes
from morenas.base.files import read_object, write_arrays, write_json
from morenas.base.seeds import derive
from morenas.base.tensors import digest
from morenas.finetune.attach import attach
from morenas.finetune.evaluate import ClassifierScorer, Metrics, Scorer
from morenas.finetune.language import LanguageScorer
from morenas.finetune.loop import FinetuneData, FinetuneResult, finetune
from morenas.finetune.methods import Method, Targets, method_name
from morenas.finetune.settings import TrainingSettings
from morenas.finetune.state import save_adapter, trained_state
from morenas.run.config import RunConfig
from morenas.run.sections import fill
from morenas.run.session import Session
from morenas.tasks.metrics import compute_metrics, needs_generation
from morenas.tasks.spec import TaskSpec


def fit(
    run: Session,
    method: Method,
    targets: Targets,
    phase: str,
    adapter: Path,
    details: dict[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Fine-tune by a method, read the test sets once, save what was trained.

    Args:
        targets: Modules that the method may adapt.
        phase: Names the phase, its checkpoints and its metrics.
        adapter: Folder for what was trained.
        details: What to say of the method in its row.
        changes: Training settings that are other than the run's, by name.
    Returns:
        A row of ``results.json``; that of an earlier process, where a resumed run has done all this before.
    """
    outcome = run.directory.checkpoints / f"{phase}.json"
    if outcome.exists():
        return read_object(outcome, "phase outcome", {"name": str, "metrics": dict, "details": dict})
    settings = replace(training_settings(run.config, run.device), **changes)
    model, result, seconds = _train(run, method, targets, phase, settings)
    with run.meter.phase("evaluate"):
        tests = read_tests(run, model, settings, phase)
    save_adapter(model, adapter)
    row = {
        "name": method_name(method),
        "metrics": {**tests, "select": result.metrics},
        "adapter_params": result.adapter_params,
        "head_params": result.head_params,
        "params_fraction": result.adapter_params / run.model_parameters,
        "learning_rate": settings.learning_rate,
        "steps": result.steps,
        "seconds": seconds,
        "details": {"best_step": result.best_step, **(details or {})},
    }
    write_json(outcome, row)
    return row


def _train(
    run: Session, method: Method, targets: Targets, phase: str, settings: TrainingSettings
) -> tuple[nn.Module, FinetuneResult, float]:
    """The trained model, the result of its training, and the seconds it took."""
    pretrained, total_steps = run.base.take(), settings.total_steps(len(run.data.final_train))
    with run.meter.phase(phase) as measured:
        seed = derive(run.config.seed, phase)
        model = attach(pretrained.model, method, dict(targets), pretrained.head, seed, total_steps)
        checkpoints = run.directory.checkpoints / phase
        result = finetune(model, finetune_data(run), settings, checkpoints, run.observer, pretrained.head, phase)
        measured.steps = result.steps
        processes.check_same("trained adapter", lambda: digest(trained_state(model)))
    return model, result, measured.seconds


def training_settings(config: RunConfig, device: str) -> TrainingSettings:
    """The training section of a config as a fine-tune takes it."""
    return fill(TrainingSettings, config.training, seed=config.seed, device=device)


def final_steps(run: Session) -> int:
    """Optimizer steps of a fine-tune."""
    return training_settings(run.config, run.device).total_steps(len(run.data.final_train))


def finetune_data(run: Session) -> FinetuneData:
    """Data of a fine-tune. Checkpoints are chosen without generating, unless that is what they are chosen by."""
    spec = run.task.spec
    names = [name for name in spec.metrics if not (spec.causal and needs_generation(name))]
    score = scorer(run, spec, tuple(dict.fromkeys([*names, run.task.select_metric])))
    return FinetuneData(run.data.final_train, run.data.select, run.data.tokenizer, score, run.task.select_metric)


def read_tests(run: Session, model: nn.Module, settings: TrainingSettings, phase: str) -> dict[str, dict[str, float]]:
    """Metrics by test set; of several parts of a task their mean comes first. A classifier's predictions are kept."""
    tests = {}
    for name, test in run.task.tests.items():
        spec = run.task.test_specs[name]
        score = scorer(run, spec, spec.metrics, keep=run.directory.predictions / f"{phase}-{name}.npz")
        tests[name] = score(model, run.data.test(name, test), settings.eval_batch_size, settings.bf16)
    if run.task.spec.mix is None:
        return tests
    mean = {metric: sum(test[metric] for test in tests.values()) / len(tests) for metric in run.task.spec.metrics}
    return {"mean": mean, **tests}


def scorer(run: Session, spec: TaskSpec, metrics: Sequence[str], keep: Path | None = None) -> Scorer:
    """What scores a model on a task, or on a part of one.

    Args:
        keep: File for what a classifier predicts.
    """
    if spec.causal:
        return LanguageScorer(run.data.tokenizer, metrics, spec.answer, spec.max_new_tokens)
    score = partial(compute_metrics, metrics, spec.kind)
    return ClassifierScorer(run.data.tokenizer, score if keep is None else partial(_score_and_keep, score, keep))


def _score_and_keep(score: Metrics, path: Path, logits: NDArray[Any], labels: NDArray[Any]) -> Mapping[str, float]:
    write_arrays(path, logits=logits, labels=labels)
    return score(logits, labels)
