"""metrics.jsonl: one object a line, and none twice after a resume."""

from __future__ import annotations

import json
from pathlib import Path

from morenas.tracking.jsonl import JsonLines


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_a_line_is_there_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    record = JsonLines(tmp_path)
    record.start("search", 0)
    record.log("search", 1, {"search/lower_loss": 0.5})
    path = tmp_path / "search" / "metrics.jsonl"
    assert json.loads(path.read_text()) == {"step": 1, "search/lower_loss": 0.5}


def test_a_resumed_phase_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    record = JsonLines(tmp_path)
    record.start("search", 0)
    for step in range(1, 8):
        record.log("search", step, {})
    path = tmp_path / "search" / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"step": 8, "torn')  # killed while writing
    again = JsonLines(tmp_path)
    again.start("search", 4)
    for step in (5, 6):
        again.log("search", step, {})
    again.close(failed=False)
    assert steps(path) == [1, 2, 3, 4, 5, 6]


def test_phases_have_files_of_their_own(tmp_path: Path) -> None:
    record = JsonLines(tmp_path)
    for phase in ("search", "finetune"):
        record.start(phase, 0)
        record.log(phase, 1, {})
    assert steps(tmp_path / "search" / "metrics.jsonl") == steps(tmp_path / "finetune" / "metrics.jsonl") == [1]
