"""Streams of random numbers are independent and the same on every machine."""

from __future__ import annotations

from morenas.base.seeds import derive


def test_seeds_of_other_names_differ_and_stay_what_they_are() -> None:
    assert derive(0, "a") == 7606779636460171844  # runs of earlier versions are repeated by it
    assert len({derive(seed, name, number) for seed in range(3) for name in "ab" for number in range(3)}) == 18
    assert all(0 <= derive(seed) < 2**63 for seed in range(100))
