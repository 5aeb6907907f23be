"""Whoever reads a run directory, resume, export or compare, gets the same message for the same fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_documents import RESULTS

from morenas.base.errors import InputError
from morenas.base.files import write_json
from morenas.run.reading import is_complete, read_all_results, read_finished, read_record, read_unfinished
from morenas.run.results import write_results

RECORD = {"command": "finetune", "config": {"task": {"kind": "classification"}, "model": {}}, "overrides": ["seed=1"]}
READERS: dict[str, Callable[[Path], Any]] = {
    "resume=": lambda path: read_unfinished(path, "finetune"),
    "run=": read_finished,
    "": lambda path: read_all_results([path]),
}
"""Every reader, by what its messages put before the directory."""


def write_run(path: Path, complete: bool = True, **results: Any) -> Path:
    write_json(path / ".hydra" / "run.json", RECORD)
    (path / "adapter").mkdir()
    if complete:
        write_results(path / "results.json", {**RESULTS, **results})
    return path


def fault(reader: str, path: Path) -> str:
    with pytest.raises(InputError) as error:
        READERS[reader](path)
    return str(error.value).removeprefix(f"{reader}{path}")


@pytest.mark.parametrize("reader", READERS)
def test_a_directory_that_is_not_there(reader: str, tmp_path: Path) -> None:
    assert fault(reader, tmp_path / "gone") == ": there is no such directory."


@pytest.mark.parametrize("reader", ["resume=", "run="])
def test_a_directory_where_no_run_began(reader: str, tmp_path: Path) -> None:
    assert fault(reader, tmp_path) == ": no run began there (.hydra/run.json is missing); name a run directory."


@pytest.mark.parametrize("document", [{}, {"command": "search"}, {**RECORD, "more": 1}])
@pytest.mark.parametrize("reader", READERS)
def test_a_record_that_no_run_wrote(reader: str, document: dict[str, Any], tmp_path: Path) -> None:
    write_json(write_run(tmp_path / "run", complete=False) / ".hydra" / "run.json", document)
    assert fault(reader, tmp_path / "run").endswith("run.json: not what a run wrote; restore it, or begin a new run.")


@pytest.mark.parametrize("reader", ["run=", ""])
def test_a_run_that_is_not_complete_is_to_be_finished(reader: str, tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", complete=False)
    assert fault(reader, path) == (
        f": this run is not complete (results.json is missing); finish it: python -m morenas.finetune resume={path}"
    )
    assert not is_complete(path) and read_unfinished(path, "finetune").overrides == ["seed=1"]


@pytest.mark.parametrize("reader", ["run=", ""])
def test_a_run_that_failed_is_refused_with_its_status(reader: str, tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", status="failed")
    assert fault(reader, path).endswith(": this run is not complete, its status is failed; run it again.")


@pytest.mark.parametrize("reader", ["run=", ""])
def test_results_that_break_the_schema(reader: str, tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    write_json(path / "results.json", {"format": "morenas.results/1", **RESULTS, "value": "high"})
    assert f"{path / 'results.json'}: not a valid results: at 'value'" in f"{path}{fault(reader, path)}"


def test_a_complete_run_is_not_gone_on_with(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    assert "this run is complete; its results are in" in fault("resume=", path) and is_complete(path)


def test_a_run_goes_on_by_the_command_that_began_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"belongs to python -m morenas\.finetune, not morenas\.search"):
        read_unfinished(write_run(tmp_path / "run", complete=False), "search")


def test_a_run_without_its_adapter_or_configuration_is_refused(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    write_json(path / ".hydra" / "run.json", {**RECORD, "config": {}})
    assert fault("run=", path) == ": its configuration is missing; copy the whole run directory again."
    (path / "adapter").rmdir()
    assert fault("run=", path) == ": its adapter is missing; copy the whole run directory again."


def test_a_complete_run_says_what_it_holds(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", data={"label_names": ["no", "yes"]})
    run = read_finished(path)
    assert (run.method, run.kind, run.base, run.label_names) == ("head", "classification", "m", ["no", "yes"])
    assert run.adapter == path / "adapter" and not run.architecture.exists()
    assert read_record(path).command == "finetune"


def test_results_are_found_in_any_depth_and_each_once(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / name) for name in ("b", "a/deep")]
    found = read_all_results([tmp_path, *paths])
    assert list(found) == [tmp_path / "a" / "deep" / "results.json", tmp_path / "b" / "results.json"]


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    assert "holds no results.json" in fault("", tmp_path)
