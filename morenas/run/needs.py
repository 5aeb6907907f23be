"""What a run needs: its data, its model and the hub; noticed before anything heavy is imported."""

from __future__ import annotations

from morenas.base.hub import require_hub
from morenas.models.marks import marks_in
from morenas.models.pooling import check_pooling
from morenas.models.source import hub_need, resolve_model
from morenas.run.config import RunConfig
from morenas.run.sections import fill
from morenas.tasks.read import Checked, check_marks, read_examples
from morenas.tasks.spec import TaskSpec


def check_sources(config: RunConfig) -> Checked:
    """Refuse a task that cannot be, a model that is not there, a hub that is out of reach, and data that break a rule.

    Returns:
        The task's examples.
    Raises:
        InputError: Naming the key, the row, or what cannot be reached and the ways round it.
    """
    check_pooling(config.model.pooling, config.task.kind)
    spec = task_spec(config)
    needs = (spec.hub_need(), hub_need(config.model.name_or_path))
    require_hub(*(need for need in needs if need))
    source = resolve_model(config.model.name_or_path)
    checked = read_examples(spec, config.seed)
    check_marks(
        marks_in(source), spec, checked, train=spec.max_examples is None
    )  # of a sample only what is drawn counts
    return checked


def task_spec(config: RunConfig) -> TaskSpec:
    """The task section of a config as the tasks package takes it."""
    return fill(TaskSpec, config.task)
