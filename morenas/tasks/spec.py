"""What a task is, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from morenas.errors import InputError
from morenas.hub import Need

KINDS = ("classification", "regression")
SOURCES = ("hub", "files", "demo")


@dataclass(frozen=True)
class TaskSpec:
    """A task and where its data comes from.

    Attributes:
        name: As in ``+task=<name>``.
        kind: "classification" or "regression".
        text_columns: One or two columns that the model reads.
        label_names: In label order; None to take them from the data.
        metrics: Names of ``morenas.tasks.metrics``; the first is maximized.
        source: "hub", "files" or "demo"; ``data_dir`` given, files are read whatever this says.
        test_splits: Name in the results to split on the hub; None for ``test``.
        train_file: File in ``data_dir``; None for ``train.*``.
        test_files: Name in the results to file in ``data_dir``; None for ``validation*.*``, else ``test*.*``.
        search_val: Fraction of the train split that the architecture is trained on.
        select: Fraction of the train split that checkpoints and candidates are chosen on; the rest is search_train.
        max_examples: Size of a seeded, stratified sample of the train split; None for all of it.
        max_length: Tokens an example is cut to.
    """

    name: str
    text_columns: tuple[str, ...]
    metrics: tuple[str, ...]
    kind: str = "classification"
    label_column: str = "label"
    label_names: tuple[str, ...] | None = None
    source: str = "files"
    hub_path: str | None = None
    hub_name: str | None = None
    train_split: str = "train"
    test_splits: Mapping[str, str] | None = None
    data_dir: str | None = None
    train_file: str | None = None
    test_files: Mapping[str, str] | None = None
    search_val: float = 0.30
    select: float = 0.15
    max_examples: int | None = None
    max_length: int = 128

    def __post_init__(self) -> None:
        if not 1 <= len(self.text_columns) <= 2:
            raise InputError(f"task.text_columns={list(self.text_columns)}: name one or two columns of text.")
        if self.data_dir is None and self.source == "files":
            raise InputError(
                "task.data_dir: must be set, to a folder with train.* and validation.* or test.* files (jsonl, json, "
                "csv, tsv, parquet)."
            )
        if self.data_dir is None and self.source == "hub" and self.hub_path is None:
            raise InputError(
                "task.hub_path: must be set, to the name of a data set on the hub, or task.data_dir to a folder."
            )
        if not self.metrics:
            raise InputError("task.metrics is empty: name at least one metric; the first is maximized.")
        for key in ("search_val", "select"):
            if not 0 < getattr(self, key) < 1:
                raise InputError(f"task.{key}={getattr(self, key)}: a fraction of the train split, between 0 and 1.")
        if self.search_val + self.select >= 1:
            raise InputError(
                f"task.search_val={self.search_val} and task.select={self.select} leave nothing for search_train; "
                "together they must stay below 1."
            )
        for key, what in (("test_splits", "<split on the hub>"), ("test_files", "<file in task.data_dir>")):
            if getattr(self, key) is not None and not _names_to_names(getattr(self, key)):
                raise InputError(
                    f"task.{key}={getattr(self, key)}: must be a mapping, or null: "
                    f"'task.{key}={{<name in the results>: {what}}}'."
                )
        if self.max_examples is not None and self.max_examples < 1:
            raise InputError(f"task.max_examples={self.max_examples}: at least 1, or null for all examples.")
        if self.max_length < 1:
            raise InputError(f"task.max_length={self.max_length}: at least 1 token.")

    @property
    def reads_files(self) -> bool:
        """Whether examples come from local files."""
        return self.data_dir is not None or self.source == "files"

    def hub_need(self) -> Need | None:
        """What the task needs of the hub, or None."""
        if self.reads_files or self.source != "hub" or self.hub_path is None:
            return None
        return Need("dataset", self.hub_path, "task.data_dir=<folder of jsonl, csv, tsv or parquet files>")


def _names_to_names(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for pair in value.items() for name in pair)
