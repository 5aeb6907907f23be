"""What several processes share comes back to each of them as one process would have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from several import answers

from morenas.base import processes
from morenas.base.errors import InputError, RunError


@pytest.mark.parametrize("count", [2, 3])
def test_what_is_dealt_out_comes_back_whole_and_in_order(count: int, tmp_path: Path) -> None:
    def work() -> Any:
        own = list[int]()

        def square(item: int) -> int:
            own.append(item)
            return item * item

        return own, [processes.collect(range(size), square) for size in (7, 1, 0)], processes.count()

    found = answers(count, work, tmp_path)
    assert [results for _, results, _ in found] == [[[n * n for n in range(7)], [0], []]] * count
    assert sorted(item for own, _, _ in found for item in own) == sorted([*range(7), 0])  # nothing twice
    assert {there for _, _, there in found} == {count}


def test_one_process_asks_nobody() -> None:
    assert (processes.count(), processes.number(), processes.exchange(3)) == (1, 0, [3])
    assert processes.collect([1, 2], str) == ["1", "2"] and processes.merge({2: "b", 1: "a"}) == {1: "a", 2: "b"}


def test_sums_are_taken_in_the_order_of_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 the order shows: 1e8 + 1 - 1e8 is 0 from the left, and 1 otherwise."""
    vectors = [torch.full((5,), value) for value in (1e8, 1.0, -1e8)]
    monkeypatch.setattr(processes, "CHUNK", 2)

    def work() -> Any:
        own = vectors[processes.number()]
        total = processes.add_shares(None, own, 3)
        return total, processes.add_shares(total.clone(), own, 2)

    for total, further in answers(3, work, tmp_path):
        assert torch.equal(total, torch.zeros(5))
        assert torch.equal(further, torch.full((5,), 1e8))


def test_what_only_one_has_reaches_all(tmp_path: Path) -> None:
    found = answers(2, lambda: processes.merge({5 - processes.number(): "x"}), tmp_path)
    assert found == [{4: "x", 5: "x"}] * 2 and [list(one) for one in found] == [[4, 5]] * 2


@pytest.mark.parametrize("kind", [InputError, RunError])
def test_an_error_of_one_process_ends_all(kind: type[InputError | RunError], tmp_path: Path) -> None:
    def refuse(item: int) -> int:
        if item == 1:
            raise kind("the second is wrong")
        return item

    def work() -> str:
        with pytest.raises(kind) as error:
            processes.collect(range(3), refuse)
        return str(error.value)

    assert answers(2, work, tmp_path) == ["the second is wrong"] * 2


def test_processes_that_have_come_apart_say_so(tmp_path: Path) -> None:
    def work() -> str:
        processes.check_same("seed", lambda: "3")
        with pytest.raises(RunError) as error:
            processes.check_same("architecture", lambda: str(processes.number() == 1))
        return str(error.value)

    assert all("Process 1 of 2 has another architecture than process 0" in said for said in answers(2, work, tmp_path))
