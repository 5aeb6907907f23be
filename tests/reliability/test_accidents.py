"""Accidents: a killed process, a disk that is full or read-only, a machine that stops.

Whatever is cut off, at whatever file operation, goes on and ends as if nothing had been. The whole campaign takes an
hour and more; ``python -m pytest -m slow tests/reliability/test_accidents.py -s`` prints its figures.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from campaign import Found, happened
from forked import Forked

KILLS = ["KILL", "KILL_HALFWAY"]
DISK = ["FULL", "READ_ONLY"]


@pytest.fixture(scope="module")
def sampled(forked: Forked, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    of_a_search = {"KILL": 1, "KILL_HALFWAY": 1, "CUT": 1, "FULL": 1, "READ_ONLY": 1}
    of_others = {"KILL": 1, "FULL": 1}
    return happened(
        forked,
        tmp_path_factory.mktemp("accidents"),
        {"work": "search", "faults": list(of_a_search), "sample": of_a_search, "twice": 1, "moments": 1},
        *({"work": work, "faults": list(of_others), "sample": of_others} for work in ("lora", "benchmark")),
    )


def test_a_search_outlives_a_sample_of_accidents(sampled: dict[str, Found]) -> None:
    assert sampled["search"].accidents == 7
    assert not sampled["search"].wrong


def test_the_file_operations_of_native_code_are_among_them(sampled: dict[str, Found]) -> None:
    written = sampled["search"].written
    assert "metrics.jsonl" in written  # by Python
    assert "optimizer.pt" in written  # by torch, in C++
    assert any(name.startswith(".tmp") for name in written)  # by safetensors, in Rust, before it is renamed


@pytest.mark.parametrize("work", ["lora", "benchmark"])
def test_what_another_command_writes_is_there_whole_or_not_at_all(work: str, sampled: dict[str, Found]) -> None:
    assert sampled[work].accidents == 2
    assert not sampled[work].wrong


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("fault", KILLS)
def test_a_search_that_is_killed_at_any_operation_ends_bit_for_bit_as_one_that_is_not(
    fault: str, forked: Forked, tmp_path: Path
) -> None:
    assert not happened(forked, tmp_path, {"work": "search", "faults": [fault]})["search"].wrong


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_search_that_is_killed_at_any_moment_or_twice_ends_so_too(forked: Forked, tmp_path: Path) -> None:
    plan = {"work": "search", "faults": [], "moments": 200, "twice": 100}
    assert not happened(forked, tmp_path, plan)["search"].wrong


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_search_goes_on_where_the_machine_stopped_before_all_was_on_the_disk(forked: Forked, tmp_path: Path) -> None:
    assert not happened(forked, tmp_path, {"work": "search", "faults": ["CUT"], "sample": {"CUT": 120}})["search"].wrong


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("fault", DISK)
def test_a_disk_that_takes_nothing_more_is_one_message_and_the_search_goes_on_later(
    fault: str, forked: Forked, tmp_path: Path
) -> None:
    assert not happened(forked, tmp_path, {"work": "search", "faults": [fault]})["search"].wrong


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_what_other_commands_write_outlives_every_accident(forked: Forked, tmp_path: Path) -> None:
    works = ("lora", "more", "merged", "benchmark")
    found = happened(forked, tmp_path, *({"work": work, "faults": [*KILLS, "CUT", *DISK]} for work in works))
    assert not {work: found[work].wrong for work in works if found[work].wrong}
