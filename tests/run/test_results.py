"""Documents are checked when written and when read; phases add up; the device is checked first."""

from __future__ import annotations

import gc
import json
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from run_documents import RESULTS, ROW

from morenas.base.errors import InputError
from morenas.run import phases
from morenas.run.devices import resolve_device
from morenas.run.phases import Meter
from morenas.run.results import read_results, versions, write_results


def test_results_round_trip(tmp_path: Path) -> None:
    write_results(tmp_path / "results.json", RESULTS)
    assert read_results(tmp_path / "results.json") == {"format": "morenas.results/1", **RESULTS}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"value": "high"}, "at 'value'"),
        ({"methods": []}, "at 'methods'"),
        ({"methods": [{**ROW, "adapter_params": -1}]}, r"at 'methods\[0\]\.adapter_params'"),
        ({"extra": 1}, "extra"),
        ({"status": "done"}, "at 'status'"),
    ],
)
def test_a_document_that_breaks_the_schema_is_neither_written_nor_read(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(InputError, match=said):
        write_results(path, {**RESULTS, **changes})
    assert not path.exists()
    path.write_text(json.dumps({"format": "morenas.results/1", **RESULTS, **changes}))
    with pytest.raises(InputError, match=said):
        read_results(path)


def test_another_version_is_distinguished_from_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"format": "morenas.results/2"}))
    with pytest.raises(InputError, match=r"its format is 'morenas.results/2', this version .* 'morenas.results/1'"):
        read_results(tmp_path / "results.json")


def test_versions_name_what_results_depend_on() -> None:
    found = versions()
    assert found["morenas"] and torch.__version__.startswith(found["torch"] or "?")


def test_a_phase_adds_up_over_interruptions(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), Meter(tmp_path / "phases.json").phase("search") as phase:
            time.sleep(0.05)
            raise KeyboardInterrupt
    (row,) = Meter(tmp_path / "phases.json").rows()
    assert 0.1 <= row["seconds"] < 1 and row["peak_memory_bytes"] > 10**7
    assert phase.name == "search"


def test_peak_memory_is_that_of_the_phase(tmp_path: Path) -> None:
    meter = Meter(tmp_path / "phases.json")
    with meter.phase("large"):
        torch.ones(30_000_000).sum()
    with meter.phase("small"):
        torch.ones(10).sum()
    large, small = meter.rows()
    assert large["peak_memory_bytes"] - small["peak_memory_bytes"] > 60_000_000


def test_a_phase_that_is_killed_has_left_what_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "SAVE_EVERY", 0.0)
    meter = Meter(tmp_path / "phases.json")
    with meter.phase("search"):
        time.sleep(0.01)
        meter.beat()
        (row,) = Meter(tmp_path / "phases.json").rows()  # as a resumed run would find it
    assert row["seconds"] >= 0.01 and row["peak_memory_bytes"] > 0
    meter.beat()  # between phases there is nothing to measure


def test_a_resumed_phase_keeps_the_most_memory_over_the_model(tmp_path: Path) -> None:
    model = torch.ones(20_000_000)
    for numbers in (30_000_000, 10):
        with Meter(tmp_path / "phases.json").phase("search"):
            torch.ones(numbers).sum()
    (row,) = Meter(tmp_path / "phases.json").rows()
    taken = row["memory_over_model_bytes"]
    assert 100_000_000 < taken < 160_000_000 < row["peak_memory_bytes"] and len(model)


def test_a_phase_begins_without_what_the_one_before_left_in_cycles(tmp_path: Path) -> None:
    class Trainer:
        def __init__(self) -> None:
            self.itself = self

    gc.disable()
    try:
        left = weakref.ref(Trainer())
        with Meter(tmp_path / "phases.json").phase("finetune"):
            assert left() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "cpu:1", "cuda:99", "mps:0", ""])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="choose auto, cpu, cuda, cuda:<number> or mps"):
        resolve_device(name)


def test_auto_takes_what_there_is() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda:0" if torch.cuda.is_available() else resolve_device("auto"))
