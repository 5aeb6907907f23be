"""From a task's description to four disjoint, checked splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray

from morenas.errors import InputError
from morenas.seeds import derive
from morenas.tasks.labels import Example, check_examples, label_names
from morenas.tasks.metrics import check_metrics, compute_metrics
from morenas.tasks.sources.demo import read_demo
from morenas.tasks.sources.files import read_files
from morenas.tasks.sources.hub import read_hub
from morenas.tasks.sources.raw import Raw
from morenas.tasks.spec import TaskSpec
from morenas.tasks.splits import content, sample_examples, split_examples

SOURCES: dict[str, Callable[[TaskSpec], Raw]] = {"hub": read_hub, "files": read_files, "demo": read_demo}


@dataclass(frozen=True)
class Task:
    """A task's data. Each data set has the text columns and ``label`` (int, or float for regression).

    Attributes:
        search_train: What weights are searched on.
        search_val: What the architecture is searched on.
        select: What checkpoints and candidates are chosen on.
        tests: Test sets by name; each is read once per run and method, at the very end.
        provenance: Source, checksums, sizes, how many rows were dropped because a test set holds their text, and the
            fingerprint of the splits.
    """

    spec: TaskSpec
    label_names: tuple[str, ...]
    search_train: Dataset
    search_val: Dataset
    select: Dataset
    tests: dict[str, Dataset]
    provenance: dict[str, Any]

    @property
    def num_labels(self) -> int:
        """Outputs of the head: 1 for regression."""
        return len(self.label_names) or 1

    @property
    def metric(self) -> str:
        """The metric that is maximized."""
        return self.spec.metrics[0]

    def final_train(self) -> Dataset:
        """What the final fine-tune trains on: search_train and search_val together."""
        return concatenate_datasets([self.search_train, self.search_val])

    def metrics(self, logits: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        """Score logits ``(examples, num_labels)`` against labels."""
        return compute_metrics(self.spec.metrics, self.spec.kind, logits, labels)


def load_task(spec: TaskSpec, seed: int) -> Task:
    """Read, check and split a task's data.

    Train rows whose text occurs in a test set are dropped: nothing of the test set reaches the search.

    Args:
        seed: Of the splits.
    Raises:
        InputError: If the data cannot be reached or breaks a rule; names the file, row and way out.
    """
    check_metrics(spec.metrics, spec.kind)
    raw = SOURCES["files" if spec.reads_files else spec.source](spec)
    names = label_names(spec, raw.train)
    tests = {name: check_examples(spec, table, names) for name, table in raw.tests.items()}
    seen = {content(example, spec.text_columns) for examples in tests.values() for example in examples}
    everything = check_examples(spec, raw.train, names)
    train = [example for example in everything if content(example, spec.text_columns) not in seen]
    dropped = len(everything) - len(train)
    if not train:
        raise InputError(
            f"{raw.train.name}: every text is in a test set too, so none is left to train on; name other data."
        )
    regression = spec.kind == "regression"
    if spec.max_examples is not None:
        sample = sample_examples(train, spec.text_columns, spec.max_examples, derive(seed, "sample"), regression)
        train = [train[index] for index in sample]
    fractions = {"search_val": spec.search_val, "select": spec.select}
    rows = split_examples(train, spec.text_columns, fractions, "search_train", derive(seed, "splits"), regression)
    splits = {name: [train[index] for index in indices] for name, indices in rows.items()}
    return Task(
        spec=spec,
        label_names=names,
        **{name: Dataset.from_list(examples) for name, examples in splits.items()},
        tests={name: Dataset.from_list(examples) for name, examples in tests.items()},
        provenance={
            **raw.provenance,
            "sizes": {name: len(examples) for name, examples in (splits | tests).items()},
            "dropped_in_test": dropped,
            "fingerprint": fingerprint(splits | tests, spec),
        },
    )


def fingerprint(splits: dict[str, list[Example]], spec: TaskSpec) -> str:
    """SHA-256 over which content, with which label, is in which split; row order aside."""
    digest = hashlib.sha256()
    for name in sorted(splits):
        digest.update(f"{name}\x1d".encode())
        for line in sorted(
            f"{content(example, spec.text_columns)}\x1f{example['label']!r}" for example in splits[name]
        ):
            digest.update(f"{line}\x1e".encode())
    return digest.hexdigest()
