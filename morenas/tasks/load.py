"""From a task's description to four disjoint, checked splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from datasets import Dataset, Features, List, Value, concatenate_datasets

from morenas.base.errors import InputError
from morenas.base.registry import registry
from morenas.base.seeds import derive
from morenas.tasks.labels import Example, check_examples, label_names
from morenas.tasks.records import PROMPT, check_records, known_choices
from morenas.tasks.sources.raw import Raw
from morenas.tasks.spec import TaskSpec, of_part
from morenas.tasks.splits import content, sample_examples, split_examples

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
    """

    spec: TaskSpec
    label_names: tuple[str, ...]
    search_train: Dataset
    search_val: Dataset
    select: Dataset
    tests: dict[str, Dataset]
    test_specs: dict[str, TaskSpec]
    provenance: dict[str, Any]

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


@dataclass(frozen=True)
class Checked:
    """Checked examples before they are split; ``name`` is that of the train split in messages."""

    name: str
    train: list[Example]
    tests: dict[str, list[Example]]
    test_specs: dict[str, TaskSpec]
    label_names: tuple[str, ...]
    provenance: dict[str, Any]


def load_task(spec: TaskSpec, seed: int) -> Task:
    """Read, check and split a task's data.

    Train rows whose text occurs in a test set are dropped, so that nothing of it reaches the search. In a mix that
    holds for the test sets of all parts.

    Args:
        seed: Of the splits.
    Raises:
        InputError: If the data cannot be reached or breaks a rule; names the file, row and way out.
    """
    if spec.train_split is None:
        raise InputError("task.train_split: must be set; only a part of a mix goes without one.")
    columns = PROMPT if spec.causal else spec.text_columns
    checked = _read(spec) if spec.mix is None else _read_mix(spec, seed)
    seen = {content(example, columns) for examples in checked.tests.values() for example in examples}
    train = [example for example in checked.train if content(example, columns) not in seen]
    dropped = len(checked.train) - len(train)
    if not train:
        raise InputError(
            f"{checked.name}: every text is in a test set too, so none is left to train on; name other data."
        )
    train = _sampled(spec, train, seed)
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


def _read(spec: TaskSpec) -> Checked:
    """Read and check a task that is no mix; for a part of a mix, ``train`` may be empty."""
    raw = _raw(spec)
    names: tuple[str, ...] = ()
    if spec.causal:
        known = known_choices(spec, raw.train)
        tests = {name: check_records(spec, table, known, train=False) for name, table in raw.tests.items()}
        train = [] if raw.train is None else check_records(spec, raw.train, known, train=True)
    else:
        assert raw.train is not None, "a source leaves it out only where train_split is None"
        names = label_names(spec, raw.train)
        tests = {name: check_examples(spec, table, names) for name, table in raw.tests.items()}
        train = check_examples(spec, raw.train, names)
    called = spec.name if raw.train is None else raw.train.name
    return Checked(called, train, tests, dict.fromkeys(tests, spec), names, raw.provenance)


def _raw(spec: TaskSpec) -> Raw:
    source = "files" if spec.reads_files else spec.source
    raw = registry("source").build(source)(spec)
    if not isinstance(raw, Raw):
        name = registry("source").chosen_by(source)
        raise InputError(f"task.source={name}: gave {type(raw).__name__} in place of morenas.tasks.sources.raw.Raw.")
    return raw


def _read_mix(spec: TaskSpec, seed: int) -> Checked:
    """Read the parts of a mix. Each pair of part and answer becomes a label of its own, for stratification."""
    parts = {name: _read_part(name, part, seed) for name, part in spec.parts().items()}
    _check_distinct({name: part.provenance for name, part in parts.items()})
    strata = sorted({(name, example["label"]) for name, part in parts.items() for example in part.train})
    place = {stratum: index for index, stratum in enumerate(strata)}
    train = [{**e, "label": place[name, e["label"]]} for name, part in parts.items() for e in part.train]
    if not train:
        raise InputError(f"task.mix: no part of {spec.name} has a train split; leave train_split out of one.")
    tests = {_test_name(name, test, part): rows for name, part in parts.items() for test, rows in part.tests.items()}
    specs = {_test_name(name, test, part): part.test_specs[test] for name, part in parts.items() for test in part.tests}
    provenance = {"source": "mix", "parts": {name: part.provenance for name, part in parts.items()}}
    return Checked(spec.name, train, tests, specs, (), provenance)


def _check_distinct(provenances: dict[str, dict[str, Any]]) -> None:
    """Refuse parts that read the same files, as happens when their folders are missing in ``data_dir``."""
    names: dict[str, str] = {}
    for name, provenance in provenances.items():
        if (other := names.setdefault(repr(provenance), name)) != name:
            raise InputError(
                f"task.mix: {other} and {name} are read from the same files "
                f"({provenance.get('data_dir') or provenance.get('path')}); name the folder of each: "
                f"task.mix.{name}.folder=<folder in task.data_dir>."
            )


def _read_part(name: str, part: TaskSpec, seed: int) -> Checked:
    try:
        checked = _read(part)
        return replace(checked, train=_sampled(part, checked.train, seed))
    except InputError as error:
        raise of_part(name, error) from error


def _test_name(part: str, test: str, checked: Checked) -> str:
    return part if len(checked.tests) == 1 else f"{part}_{test}"


def _sampled(spec: TaskSpec, examples: list[Example], seed: int) -> list[Example]:
    if spec.max_examples is None:
        return examples
    columns = PROMPT if spec.causal else spec.text_columns
    rows = sample_examples(examples, columns, spec.max_examples, derive(seed, "sample"), spec.kind == "regression")
    return [examples[index] for index in rows]
