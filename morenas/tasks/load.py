"""From a task's description to four disjoint, checked splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, Features, List, Value, concatenate_datasets

from morenas.base.errors import InputError
from morenas.base.seeds import derive
from morenas.tasks.labels import Example
from morenas.tasks.read import Checked, read_examples, sampled
from morenas.tasks.records import PROMPT
from morenas.tasks.spec import TaskSpec
from morenas.tasks.splits import content, split_examples

# Given here because datasets cannot infer a type from records without choices, and would then not join the splits.
RECORDS = Features(
    {name: Value("string") for name in (*PROMPT, "output", "answer")}
    | {"choices": List(Value("string")), "label": Value("int64")}
)


@dataclass(frozen=True)
class Task:
    """A task's data. Each data set has the text columns and ``label`` (int, or float for regression).

    Data sets of records have ``instruction``, ``input``, ``output``, ``answer``, ``choices`` and ``label``; their
    columns are renamed to these.

    Attributes:
        spec: What the task is.
        label_names: Names of the classes, in label order; empty for regression and records.
        search_train: Examples that adapter weights are trained on during the search.
        search_val: Examples that the architecture is trained on.
        select: Examples that checkpoints and candidates are chosen on.
        tests: Test sets by name; each is read once per run and method, at the very end.
        test_specs: How each test set is encoded and scored: the spec of the task, or of a part of a mix.
        provenance: Source, checksums, sizes, how many rows were dropped because a test set holds their text, and the
            fingerprint of the splits.
        notes: What the user should know of the data.
    """

    spec: TaskSpec
    label_names: tuple[str, ...]
    search_train: Dataset
    search_val: Dataset
    select: Dataset
    tests: dict[str, Dataset]
    test_specs: dict[str, TaskSpec]
    provenance: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def num_labels(self) -> int:
        """Outputs of the head: 1 for regression."""
        return len(self.label_names) or 1

    @property
    def metric(self) -> str:
        """The metric that is maximized."""
        return self.spec.metrics[0]

    @property
    def select_metric(self) -> str:
        """The metric that checkpoints are chosen by."""
        return self.spec.select_metric or self.metric

    def final_train(self) -> Dataset:
        """What the final fine-tune trains on: search_train and search_val together."""
        return concatenate_datasets([self.search_train, self.search_val])


def load_task(spec: TaskSpec, seed: int, checked: Checked | None = None) -> Task:
    """Read, check and split a task's data.

    Train rows whose text occurs in a test set are dropped, so that nothing of it reaches the search. In a mix that
    holds for the test sets of all parts.

    Args:
        seed: Of the splits.
        checked: Its examples, where they have been read already.
    Raises:
        InputError: If the data cannot be reached or breaks a rule; names the file, row and way out.
    """
    columns = PROMPT if spec.causal else spec.text_columns
    checked = checked or read_examples(spec, seed)
    seen = {content(example, columns) for examples in checked.tests.values() for example in examples}
    train = [example for example in checked.train if content(example, columns) not in seen]
    dropped = len(checked.train) - len(train)
    if not train:
        raise InputError(
            f"{checked.name}: every text is in a test set too, so none is left to train on; name other data."
        )
    train = sampled(spec, train, seed)
    fractions = {"search_val": spec.search_val, "select": spec.select}
    regression = spec.kind == "regression"
    rows = split_examples(train, columns, fractions, "search_train", derive(seed, "splits"), regression)
    splits = {name: [train[index] for index in indices] for name, indices in rows.items()}
    features = RECORDS if spec.causal else None
    return Task(
        spec=spec,
        label_names=checked.label_names,
        **{name: Dataset.from_list(examples, features) for name, examples in splits.items()},
        tests={name: Dataset.from_list(examples, features) for name, examples in checked.tests.items()},
        test_specs=checked.test_specs,
        provenance={
            **checked.provenance,
            "sizes": {name: len(examples) for name, examples in (splits | checked.tests).items()},
            "dropped_in_test": dropped,
            "label_names": list(checked.label_names),
            "fingerprint": fingerprint(splits | checked.tests, spec),
        },
        notes=checked.notes,
    )


def fingerprint(splits: dict[str, list[Example]], spec: TaskSpec) -> str:
    """SHA-256 of the splits: of the content and label of their examples, whatever the order of rows.

    For records the output, the answer and the choices count too.
    """
    digest = hashlib.sha256()
    for name in sorted(splits):
        digest.update(f"{name}\x1d".encode())
        for line in sorted(_line(example, spec) for example in splits[name]):
            digest.update(f"{line}\x1e".encode())
    return digest.hexdigest()


def _line(example: Example, spec: TaskSpec) -> str:
    if not spec.causal:
        return f"{content(example, spec.text_columns)}\x1f{example['label']!r}"
    return "\x1f".join([content(example, PROMPT), *(repr(example[key]) for key in ("output", "answer", "choices"))])
