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
def sampled(forked: Forked, tmp_path_factory: pytest.TempPathFactory) -> Found:
    sample = {"KILL": 1, "KILL_HALFWAY": 1, "CUT": 1, "FULL": 1}
    plan = {"work": "search", "faults": list(sample), "sample": sample, "moments": 1}
    return happened(forked, tmp_path_factory.mktemp("accidents"), plan)["search"]


def test_a_search_outlives_a_sample_of_accidents(sampled: Found) -> None:
    assert sampled.accidents == 5
    assert not sampled.wrong


def test_the_file_operations_of_native_code_are_among_them(sampled: Found) -> None:
    written = sampled.written
    assert "metrics.jsonl" in written  # by Python
    assert "optimizer.pt" in written  # by torch, in C++
    assert any(name.startswith(".tmp") for name in written)  # by safetensors, in Rust, before it is renamed


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
