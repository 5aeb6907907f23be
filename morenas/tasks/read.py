"""Read a task's examples and check every row. Free of heavy imports, so that bad files are refused within seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from morenas.base.errors import InputError
from morenas.base.registry import registry
from morenas.base.seeds import derive
from morenas.tasks.labels import Example, check_examples, check_spread, find_classes
from morenas.tasks.records import PROMPT, RECORD_TEXTS, check_records, known_choices
from morenas.tasks.sources.raw import Raw
from morenas.tasks.spec import TaskSpec, of_part
from morenas.tasks.spelling import SpelledToken, check_spelling
from morenas.tasks.splits import sample_examples


@dataclass(frozen=True)
class Checked:
    """Checked examples before they are split.

    Attributes:
        name: That of the train split in messages.
        notes: What the user should know of the data.
    """

    name: str
    train: list[Example]
    tests: dict[str, list[Example]]
    test_specs: dict[str, TaskSpec]
    label_names: tuple[str, ...]
    provenance: dict[str, Any]
    notes: tuple[str, ...] = ()


def read_examples(spec: TaskSpec, seed: int) -> Checked:
    """Read and check a task's examples.

    Args:
        seed: Of the samples that a mix takes of its parts.
    Raises:
        InputError: If the data cannot be reached or breaks a rule; names the file, row and way out.
    """
    if spec.train_split is None:
        raise InputError("task.train_split: must be set; only a part of a mix goes without one.")
    return _read(spec) if spec.mix is None else _read_mix(spec, seed)


def place_of(spec: TaskSpec, text: str) -> str | None:
    """Where a text stands in a task's data, for messages: the data are read once more."""
    for part in spec.parts().values():
        raw = _raw(part)
        for table in (*([raw.train] if raw.train else []), *raw.tests.values()):
            for index, row in enumerate(table.rows):
                if text in row.values():
                    return table.place(index)
    return None


@contextmanager
def placed(spec: TaskSpec) -> Iterator[None]:
    """Say of a text that spells a special token where it stands."""
    try:
        yield
    except SpelledToken as error:
        raise error.at(place_of(spec, error.text) or spec.name) from error


def check_marks(marks: Sequence[str], spec: TaskSpec, checked: Checked, train: bool = True) -> None:
    """Refuse examples whose texts spell a token that marks where texts begin and end.

    Args:
        train: Look at the train split too.
    Raises:
        InputError: Naming the row.
    """
    columns = RECORD_TEXTS if spec.causal else spec.text_columns
    splits = [*([checked.train] if train else []), *checked.tests.values()]
    with placed(spec):
        for examples in splits:
            check_spelling(marks, *([str(example[column]) for example in examples] for column in columns))


def _read(spec: TaskSpec) -> Checked:
    """Read and check a task that is no mix; for a part of a mix, ``train`` may be empty."""
    raw = _raw(spec)
    return _read_records(spec, raw) if spec.causal else _read_labels(spec, raw)


def _read_records(spec: TaskSpec, raw: Raw) -> Checked:
    known = known_choices(spec, raw.train)
    tests = {name: check_records(spec, table, known, train=False) for name, table in raw.tests.items()}
    train = [] if raw.train is None else check_records(spec, raw.train, known, train=True)
    called = spec.name if raw.train is None else raw.train.name
    return Checked(called, train, tests, dict.fromkeys(tests, spec), (), raw.provenance)


def _read_labels(spec: TaskSpec, raw: Raw) -> Checked:
    assert raw.train is not None, "a source leaves it out only where train_split is None"
    classes = find_classes(spec, raw.train)
    train = check_examples(spec, raw.train, classes)
    tests = {name: check_examples(spec, table, classes) for name, table in raw.tests.items()}
    check_spread(spec, raw.train, train, test=False)
    said = [check_spread(spec, raw.tests[name], examples, test=True) for name, examples in tests.items()]
    names = classes.names if classes else ()
    notes = tuple(words for words in said if words)
    return Checked(raw.train.name, train, tests, dict.fromkeys(tests, spec), names, raw.provenance, notes)


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
        return replace(checked, train=sampled(part, checked.train, seed))
    except InputError as error:
        raise of_part(name, error) from error


def _test_name(part: str, test: str, checked: Checked) -> str:
    return part if len(checked.tests) == 1 else f"{part}_{test}"


def sampled(spec: TaskSpec, examples: list[Example], seed: int) -> list[Example]:
    """The examples, or a sample of them where the task asks for one."""
    if spec.max_examples is None:
        return examples
    columns = PROMPT if spec.causal else spec.text_columns
    rows = sample_examples(examples, columns, spec.max_examples, derive(seed, "sample"), spec.kind == "regression")
    return [examples[index] for index in rows]
