"""Any data set of the Hugging Face hub, by its name and columns."""

from __future__ import annotations

from morenas.base.errors import InputError, suggest
from morenas.base.hub import require_hub
from morenas.tasks.sources.raw import Raw, Table
from morenas.tasks.sources.render import render_table
from morenas.tasks.spec import TaskSpec


def read_hub(spec: TaskSpec) -> Raw:
    """Load the train and test splits of a task from the hub or its local cache.

    Raises:
        InputError: If the hub is out of reach, or lacks the data set or a split.
    """
    need = spec.hub_need()
    if need is None:
        raise InputError(f"Task '{spec.name}' comes from the hub: set task.hub_path=<owner/name>.")
    require_hub(need)
    import datasets

    called = f"{spec.hub_path}" + (f" ({spec.hub_name})" if spec.hub_name else "")
    try:
        loaded = datasets.load_dataset(spec.hub_path, spec.hub_name)
    # RuntimeError: the data set is a script, which datasets no longer runs
    except (OSError, RuntimeError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise InputError(
            f"Data set {called} cannot be loaded from the hub: {str(error).splitlines()[0]} "
            "Check task.hub_path and task.hub_name, or use local files: task.data_dir=<folder>."
        ) from error

    def table(split: str) -> Table:
        if split not in loaded:
            raise InputError(
                f"Data set {called} has no split '{split}'{suggest(split, loaded)}. It has: {', '.join(loaded)}."
            )
        return render_table(Table(f"{called} {split}", loaded[split].to_list()), spec.render)

    tests = {name: table(split) for name, split in (spec.test_splits or {"test": "test"}).items()}
    fingerprints = {name: getattr(loaded[name], "_fingerprint", None) for name in loaded}
    provenance = {"source": "hub", "path": spec.hub_path, "name": spec.hub_name, "fingerprints": fingerprints}
    return Raw(None if spec.train_split is None else table(spec.train_split), tests, provenance)
