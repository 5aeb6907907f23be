"""What a search says of the lead of what it found."""

from __future__ import annotations

import math
from statistics import stdev

import pytest

from morenas.search.measure import Candidate
from morenas.search.outcome import margin


def measured(*losses: float, found: bool = False) -> Candidate:
    return Candidate({}, 0, losses, found)


FOUND = measured(1.0, 2.0, 3.0, 4.0, found=True)
NEAR = measured(1.3, 1.8, 3.2, 3.9)  # 0.05 above in the mean, now above and now below
FAR = measured(1.5, 2.6, 3.5, 4.6)
EARLY = measured(9.0, 2.1)  # fell out after two batches


def test_the_lead_is_over_the_best_of_those_measured_as_long() -> None:
    said = margin([EARLY, FAR, FOUND, NEAR])
    assert said["margin"] == pytest.approx(0.05)
    assert said["margin_error"] == pytest.approx(stdev([0.3, -0.2, 0.2, -0.1]) / math.sqrt(4))


def test_it_counts_those_that_cannot_be_told_from_what_was_found() -> None:
    assert margin([FAR, FOUND])["equals"] == 0
    assert margin([FAR, FOUND, NEAR])["equals"] == 1
    assert margin([FAR, FOUND, NEAR, EARLY])["equals"] == 2  # two batches, so far apart, say nothing


def test_without_a_comparison_nothing_is_said() -> None:
    assert margin([FOUND]) == margin([]) == margin([FAR, NEAR]) == {}
    assert margin([measured(1.0, found=True), measured(2.0)]) == {}
