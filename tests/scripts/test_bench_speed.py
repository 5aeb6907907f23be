"""The speed bench: it measures what it says, by the protocol it names, and refuses what it cannot measure."""

from __future__ import annotations

import gc
import json
import multiprocessing
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import bench_speed
import pytest
import torch
from speed import layers, memory, runs, timing
from speed.adapters import adapted_layer, forced, more, targets_of
from speed.bars import BARS, verdicts
from speed.machine import command
from speed.plot import draw
from speed.published import load_published
from speed.rows import MEMORY, STEP, Case, Row, row
from speed.runs import judged
from speed.settings import Bench
from speed.supernets import GRIDS
from torch import Tensor, nn

from morenas.base.errors import InputError
from morenas.monarch.multiply import WAYS
from morenas.space import build_space
from morenas.supernet import SHARINGS
from morenas.supernet.grid import Grid

SECTIONS = ["layers", "large", "models", "supernet", "scaling"]

PRODUCT = """
from einops import rearrange
import torch

def blockdiag_butterfly_multiply(x, first, second):
    N, r, p = first.shape
    hidden = torch.einsum("kqp,tkp->tkq", first, x.view(-1, N, p)).flatten(1)
    slots = hidden.view(-1, r, N).transpose(1, 2)
    return torch.einsum("lsr,tlr->tsl", second, slots).flatten(1) {change}
"""


class Forks:
    """In the place of ``multiprocessing``: processes that have imported everything already."""

    @staticmethod
    def get_context(name: str) -> Any:
        context: Any = multiprocessing.get_context("fork")
        context.set_forkserver_preload = lambda names: None
        return context


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One smoke run of every section that runs in this process.

    Memory is measured in forks of it, and the picture drawn after the last section alone: servers that
    import everything anew and pictures take longer than the sections.
    """
    path = tmp_path_factory.mktemp("speed") / "out.json"
    threads = torch.get_num_threads()

    def drawn(path: Path, rows: Sequence[Row]) -> None:
        if rows[-1].section == SECTIONS[-1]:
            draw(path, rows)

    try:
        words = ["--json", str(path), "--quick", "--sections", ",".join(SECTIONS), "--threads", "1"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(memory, "multiprocessing", Forks)
            patch.setattr(bench_speed, "draw", drawn)
            gc.freeze()  # what the libraries hold is looked through before every comparison
            assert bench_speed.main(words) == 0
    finally:
        torch.set_num_threads(threads)
    assert path.with_suffix(".png").stat().st_size > 10_000
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def test_a_run_says_on_what_and_how_it_was_measured(smoke: dict[str, Any]) -> None:
    assert smoke["format"] == "morenas.speed/1"
    assert smoke["machine"]["threads"] == 1 and smoke["machine"]["torch"] == torch.__version__
    sections = "layers,large,models,supernet,scaling"
    assert smoke["command"] == (
        f"python scripts/bench_speed.py --json out.json --quick --sections {sections} --threads 1"
    )


def test_every_contestant_is_measured_in_every_section(smoke: dict[str, Any]) -> None:
    seen = {section: {one["contestant"] for one in smoke["rows"] if one["section"] == section} for section in SECTIONS}
    ways = {f"{kind}/{way}" for kind in ("more", "alone") for way in WAYS}
    assert seen["layers"] == {"base", "lora", "gralora", "boft", "more", "alone/lora", "alone/more", *ways}
    assert seen["models"] == {"lora", "gralora", "boft", *(f"more N={n}" for n in (1, 2, 4, 8, 16))}
    assert seen["large"] == {"base", "lora", "more", "alone/lora", "alone/more", *ways}
    steps = {f"{kind}/{sharing}" for kind in ("lower", "upper", "merged", "beside") for sharing in SHARINGS}
    assert seen["supernet"] == {"lora r=8", *steps, *GRIDS}
    assert {one["case"]["axis"] for one in smoke["rows"] if one["section"] == "scaling"} == {
        "tokens",
        "candidates",
        "modules",
    }
    assert {one["measure"] for one in smoke["rows"]} >= {"forward", "forward+backward", STEP, MEMORY}


def test_a_reference_beside_itself_is_one_and_every_measure_is_positive(smoke: dict[str, Any]) -> None:
    for one in smoke["rows"]:
        assert ("median_ms" in one) != ("peak_bytes" in one)
        assert one.get("median_ms", one.get("peak_bytes")) > 0
        assert one["ratio_q1"] <= one["ratio"] <= one["ratio_q3"]
        if one["contestant"] == one["reference"]:
            assert one["ratio"] == 1


def test_a_smoke_run_says_nothing_about_a_bar(smoke: dict[str, Any]) -> None:
    assert len(smoke["bars"]) == len(BARS)
    assert all(bar["seen"] is None and bar["holds"] is None for bar in smoke["bars"])


def test_memory_is_measured_by_a_server_of_new_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PRELOADED", [])
    assert memory.peak_of(attrgetter("autocast"), Bench.smoke()) >= 1  # a step that needs no other library


def test_contestants_take_turns_and_every_one_is_warmed_up() -> None:
    calls: list[str] = []
    times = timing.alternate({name: (lambda name=name: calls.append(name)) for name in "abc"}, pairs=6, seed=1)  # type: ignore[misc]
    assert calls[:6] == ["a", "a", "b", "b", "c", "c"]
    rounds = [calls[at : at + 3] for at in range(6, len(calls), 3)]
    assert len(rounds) == 6 and all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1
    assert all(len(found) == 6 and min(found) >= 0 for found in times.values())


def test_a_ratio_is_the_median_over_rounds_of_ratios_of_the_same_round() -> None:
    found = row("s", {}, STEP, ("ours", "theirs"), [2.0, 9.0, 4.0], [1.0, 3.0, 8.0])
    assert (found.ratio, found.ratio_q1, found.ratio_q3, found.median_ms) == (2.0, 1.25, 2.5, 4.0)
    assert row("s", {}, MEMORY, ("ours", "theirs"), [6.0], [3.0]).document()["peak_bytes"] == 6


def test_a_forced_way_is_the_way_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    base = nn.Linear(16, 24).requires_grad_(False)
    layer = adapted_layer(base, more(targets_of(base), 4, 2), seed=0)
    x = torch.randn(3, 16)
    expected = layer(x)
    taken: list[str] = []

    def noting(way: str) -> Callable[..., Tensor]:
        product = WAYS[way]

        def call(*given: Any) -> Tensor:
            taken.append(way)
            return product(*given)

        return call

    for way in list(WAYS):
        monkeypatch.setitem(WAYS, way, noting(way))
    for way in WAYS:
        torch.testing.assert_close(forced(way, layer)(x), expected)
    assert taken == list(WAYS)


def test_the_grids_of_candidates_differ_in_number_and_in_cells_as_they_say() -> None:
    spaces = {name: build_space({"layer": (384, 384)}, *grid) for name, grid in GRIDS.items()}
    cells = {name: len(Grid.build(384, 384, grid[0]).starts) for name, grid in GRIDS.items()}
    assert {name: len(space.choices) for name, space in spaces.items()} == {
        "5x5": 21,  # rank 0 is one choice whatever N
        "8x9": 65,
        "8x9, 48 cells": 65,
        "8x9, N to 128": 65,
    }
    assert cells == {"5x5": 16, "8x9": 24, "8x9, 48 cells": 48, "8x9, N to 128": 128}


def step_row(contestant: str, ratio: float, **case: int | str) -> Row:
    return Row("models", {"model": "MiniLM", **case}, contestant, STEP, "lora", ratio, ratio, ratio, median_ms=1.0)


AS_ASKED = Bench(minilm=Path())


@pytest.mark.parametrize(
    "other",
    [{"pairs": 9}, {"threads": 1}, {"device": "cuda:0"}, {"dtype": torch.bfloat16}, {"minilm": None}, {"quick": True}],
)
def test_what_was_measured_otherwise_is_held_against_no_bar(other: dict[str, Any]) -> None:
    assert verdicts([step_row("more N=4", 0.9)], AS_ASKED)[0].holds
    assert all(one.holds is None for one in verdicts([step_row("more N=4", 0.9)], replace(AS_ASKED, **other)))


def test_every_width_and_number_of_tokens_is_timed_as_a_square_and_as_an_mlp() -> None:
    timed = {(layer.n, layer.m, layer.tokens) for layer in (*layers.grid(), *layers.large_grid())}
    for width in (384, 768, 1024, 2048, 4096):
        assert {(width, width, 512), (width, 4 * width, 512), (4 * width, width, 512), (width, width, 2048)} <= timed
    assert {(width, width, 8192) for width in (384, 768, 1024, 2048)} <= timed
    assert not set(layers.grid()) & set(layers.large_grid())


def test_a_bar_is_held_against_the_worst_of_its_rows() -> None:
    rows = [step_row("more N=4", 0.9, batch="32x64"), step_row("more N=2", 1.06), step_row("more N=16", 1.06)]
    few, many, *others = verdicts(rows, AS_ASKED)
    assert (few.seen, few.holds) == (1.06, False) and (few.where or "").startswith("more N=2")
    assert (many.seen, many.holds) == (1.06, True)
    assert all(other.holds is None for other in others)


def phases(search: float, finetune: float, peak: int = 100) -> dict[str, dict[str, Any]]:
    kinds = {"search": search, "finetune": finetune}
    return {name: {"seconds": seconds, "peak_memory_bytes": peak} for name, seconds in kinds.items()}


def test_whole_runs_are_compared_round_by_round() -> None:
    done = [
        {"search": phases(4, 10), "long search": phases(12, 1, 90), "lora": phases(0, lora)}
        for lora in (10.0, 20.0, 8.0)
    ]
    found = {(one.measure, one.contestant): one.ratio for one in judged({"task": "demo"}, done)}
    assert found[runs.AS_MANY, "search"] == 1.2
    assert found[runs.DEFAULTS, "search + final fine-tune"] == 1.4
    assert found[MEMORY, "search"] == 0.9


@pytest.mark.slow
def test_whole_runs_of_the_demo_are_measured(tmp_path: Path) -> None:
    assert bench_speed.main(["--json", str(tmp_path / "runs.json"), "--quick", "--sections", "runs"]) == 0
    rows = json.loads((tmp_path / "runs.json").read_text())["rows"]
    assert {one["measure"] for one in rows} == {runs.AS_MANY, runs.DEFAULTS, MEMORY}


def checkout(folder: Path, source: str) -> Path:
    file = folder / "src" / "ops" / "blockdiag_butterfly_multiply.py"
    file.parent.mkdir(parents=True)
    file.write_text(source)
    return folder


def test_a_published_product_that_computes_the_same_is_taken(tmp_path: Path) -> None:
    product = load_published(checkout(tmp_path, PRODUCT.format(change="")))
    assert product(torch.ones(2, 8), torch.ones(2, 1, 4), torch.ones(2, 3, 1)).shape == (2, 6)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (PRODUCT.format(change="* 1.01"), "differs from ours"),
        ("x = 1", "has no blockdiag_butterfly_multiply"),
        ("import no_such_package", "cannot be loaded"),
        (None, "lacks src/ops"),
    ],
)
def test_a_checkout_of_something_else_is_refused(source: str | None, said: str, tmp_path: Path) -> None:
    folder = tmp_path if source is None else checkout(tmp_path, source)
    with pytest.raises(InputError, match=said):
        load_published(folder)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "required: --json"),
        (["--json", "out.txt"], "must end in .json"),
        (["--json", "out.json", "--sections", "layer"], "no such section.*layers"),
        (["--json", "out.json", "--sections", ","], "names no section"),
        (["--json", "out.json", "--pairs", "0"], "--pairs 0: must be at least 1"),
        (["--json", "out.json", "--minilm", "nowhere"], "--minilm nowhere: there is no such folder"),
        (["--json", "out.json", "--glue", "."], "--glue without --minilm"),
        (["--json", "out.json", "--reference", "."], "lacks src/ops"),
        (["--json", "out.json", "--device", "tpu"], "device"),
        (["--json", "out.json", "--pear", "3"], "unrecognized arguments"),
        (["--json", "/proc/out.json"], "cannot be written"),
    ],
)
def test_wrong_words_are_refused_in_one_line_before_any_work(
    words: Sequence[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench_speed, "measure", lambda *given: pytest.fail("work was begun"))
    assert bench_speed.main(words) == 2
    written = capsys.readouterr().err
    assert len(written.strip().splitlines()) == 1
    assert re.search(said, written)
    assert not list(tmp_path.iterdir())


def test_folders_of_the_machine_do_not_reach_the_record() -> None:
    words = ["--json", "/home/me/out.json", "--minilm=/data/minilm", "--reference", "/src/more", "--pairs", "3"]
    assert command(words) == (
        "python scripts/bench_speed.py --json out.json --minilm <minilm> --reference <reference> --pairs 3"
    )


def test_a_case_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    case: Case = {"n": 8}
    rows = [Row("layers", case, name, STEP, "lora", 1.0, 1.0, 1.0, median_ms=1.0) for name in ("lora", "more")]
    assert list(bench_speed.told_of(iter(rows))) == rows
    assert capsys.readouterr().err == "layers: n=8: training step\n"
