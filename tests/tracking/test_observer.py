"""What a person sees: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from morenas.tracking import observer as module
from morenas.tracking.observer import ConsoleObserver


def shown(terminal: bool, monkeypatch: pytest.MonkeyPatch, finish: bool = True) -> str:
    monkeypatch.setattr(module, "LINE_EVERY", 0.0)
    text = io.StringIO()
    observer = ConsoleObserver(Console(file=text, force_terminal=terminal, width=100))
    observer.start("search", 4, done=1)
    observer.message("a [note] of [bold]markup[/bold]")
    for step in (2, 3, 4):
        observer.step("search", step, {"search/lower_loss": 0.125})
    if finish:
        observer.finish("search")
    observer.close()
    return text.getvalue()


def test_plain_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(False, monkeypatch).splitlines()
    assert lines[0] == "search: 4 steps, going on after 1"
    assert lines[1] == "a [note] of [bold]markup[/bold]"
    assert lines[3].startswith("search: 3/4 (75%), 0:00 left  lower_loss 0.125")
    assert lines[-1] == "search: done in 0:00"
    assert "\x1b" not in "".join(lines)


def test_a_bar_with_the_time_left_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(True, monkeypatch)
    assert "4/4" in text and "left" in text and "lower_loss 0.125" in text


def test_an_interrupted_phase_gives_the_terminal_back(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(True, monkeypatch, finish=False)
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is shown again
