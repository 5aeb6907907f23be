"""The speed bench: its protocol of timing, its bars, its refusals, and a smoke run."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import bench_speed
import pytest
import torch
from speed import bars, machine, runs, timing
from speed.rows import BOTH, MEMORY, STEP, Row, compared, row

PRODUCT = """
import torch
from einops import rearrange


def blockdiag_butterfly_multiply(x, first, second):
    nblocks = len(first)
    hidden = torch.einsum("tkp,kqp->tkq", x.unflatten(1, (nblocks, -1)), first).flatten(1)
    slots = hidden.unflatten(1, (-1, nblocks)).transpose(1, 2)
    return torch.einsum("tlr,lsr->tsl", slots, second).flatten(1)
"""


def checkout(folder: Path, product: str = PRODUCT) -> Path:
    """A checkout of the paper's repository as far as the bench looks into it."""
    file = folder / "src" / "ops" / "blockdiag_butterfly_multiply.py"
    file.parent.mkdir(parents=True)
    file.write_text(product)
    return folder


def rounds(seed: int, pairs: int = 20) -> list[list[str]]:
    """The order in which three contestants were called, round by round, warm-ups left out."""
    calls: list[str] = []
    contestants = {name: lambda name=name: calls.append(name) for name in "abc"}
    timing.alternate(contestants, pairs, seed)
    measured = calls[3 * timing.WARM_UPS :]
    return [measured[start : start + 3] for start in range(0, len(measured), 3)]


def test_every_round_calls_everybody_once_in_an_order_that_the_seed_shuffles() -> None:
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds(0)) and len(rounds(0)) == 20
    assert len({tuple(order) for order in rounds(0)}) > 3
    assert rounds(0) == rounds(0) != rounds(1)


def test_no_garbage_is_collected_while_contestants_run() -> None:
    seen: list[bool] = []
    timing.alternate({"a": lambda: seen.append(gc.isenabled())}, 1)
    assert seen == [False] * (timing.WARM_UPS + 1) and gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        timing.alternate({"a": lambda: 1 / 0}, 1)
    assert gc.isenabled()


def test_a_ratio_is_taken_within_rounds_so_that_drift_cancels() -> None:
    drifting = [1.0, 10.0, 100.0]
    found = row("s", {}, "m", ("a", "b"), [2 * value for value in drifting], drifting)
    assert (found.ratio, found.ratio_q1, found.ratio_q3, found.median_ms) == (2, 2, 2, 20)


def test_every_contestant_stands_beside_every_reference_that_took_part() -> None:
    found = compared("s", {}, MEMORY, {"a": [4.0], "b": [2.0]}, ["b", "absent"])
    assert [(row.contestant, row.reference, row.ratio, row.peak_bytes) for row in found] == [
        ("a", "b", 2, 4),
        ("b", "b", 1, 2),
    ]
    assert "median_ms" not in found[0].document()


def test_the_worst_row_decides_a_bar_and_a_missing_one_is_not_measured() -> None:
    rows = [
        Row("models", {"model": name}, contestant, STEP, "lora", ratio, 1, 1, 1)
        for name, contestant, ratio in (
            ("MiniLM", "more N=1", 1.01),
            ("MiniLM", "more N=4", 1.07),
            ("MiniLM", "more N=16", 1.09),
            ("tiny", "more N=4", 9.0),
        )
    ]
    few, many, *others = bars.verdicts(rows)
    assert (few.seen, few.holds) == (1.07, False) and few.where is not None and "more N=4" in few.where
    assert (many.seen, many.holds) == (1.09, True)
    assert all((verdict.seen, verdict.holds) == (None, None) for verdict in others)


def test_a_product_is_held_against_the_published_one_at_its_own_width() -> None:
    case = {"n": 1024, "m": 1024, "tokens": 512, "N": 4, "r": 8}
    wide = Row("layers", {**case}, "alone/more", BOTH, "alone/published", 0.4, 0.4, 0.4, 1)
    other = Row("layers", {**case, "N": 8}, "alone/more", BOTH, "alone/published", 2.0, 2.0, 2.0, 1)
    seen = {verdict.measure: verdict.seen for verdict in bars.verdicts([wide, other]) if verdict.seen is not None}
    assert len(seen) == 1 and "width 1024" in next(iter(seen)) and 0.4 in seen.values()


def test_whole_runs_are_compared_phase_by_phase() -> None:
    def phases(search: float, finetune: float, peak: int) -> runs.Phases:
        measured = {"search": search, "finetune": finetune}
        return {name: {"seconds": seconds, "peak_memory_bytes": peak} for name, seconds in measured.items()}

    done = {"search": phases(4, 10, 30), "long search": phases(12, 1, 22), "lora": phases(0, 8, 20)}
    found = {row.measure: row.ratio for row in runs.judged({}, [done]) if row.contestant != runs.LORA}
    assert found == {runs.AS_MANY: 1.5, runs.DEFAULTS: 1.75, MEMORY: 1.1}
    assert {verdict.seen for verdict in bars.verdicts(runs.judged({}, [done]))} == {None, 1.5, 1.75, 1.1}


def test_the_command_names_no_folder_of_this_machine() -> None:
    told = machine.command(["--json", "/a/out.json", "--glue=/b/glue", "--minilm", "/c", "--pairs", "3"])
    assert told == "python scripts/bench_speed.py --json out.json --glue <glue> --minilm <minilm> --pairs 3"


def test_a_smoke_run_leaves_rows_bars_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, reference = tmp_path / "out.json", checkout(tmp_path / "paper")
    words = ["--quick", "--sections", "layers", "--threads", "1", "--json", str(out), "--reference", str(reference)]
    assert bench_speed.main(words) == 0
    document = json.loads(out.read_text())
    assert list(document) == ["format", "machine", "command", "rows", "bars"]
    assert document["format"] == "morenas.speed/1" and str(tmp_path) not in document["command"]
    assert {"processor", "cores", "threads", "dtype", "device", "torch", "peft", "blas"} <= document["machine"].keys()
    needed = {"section", "case", "contestant", "measure", "reference", "ratio", "ratio_q1", "ratio_q3"}
    for measured in document["rows"]:
        assert needed < measured.keys() and measured["ratio"] > 0
        assert (measured["peak_bytes"] if measured["measure"] == MEMORY else measured["median_ms"]) > 0
    everyone = {measured["contestant"] for measured in document["rows"]}
    assert {"base", "lora", "gralora", "boft", "more", "more/grouped", "published", "alone/published"} <= everyone
    assert {bar["seen"] for bar in document["bars"]} == {None}
    assert "not measured" in capsys.readouterr().out
    assert out.with_suffix(".png").stat().st_size > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sections", "layer"], "did you mean 'layers'?"),
        (["--minilm", "nowhere"], "--minilm nowhere: there is no such folder"),
        (["--reference", "."], "lacks src/ops/blockdiag_butterfly_multiply.py"),
        (["--glue", "."], "--glue without --minilm"),
        (["--pairs", "0"], "--pairs 0: must be at least 1"),
        (["--dtype", "float16"], "--dtype"),
        (["--device", "tpu"], "device=tpu"),
        (["--speed", "1"], "--speed"),
        (["--json", "out.png"], "must end in .json"),
    ],
)
def test_wrong_input_is_refused_in_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench_speed.main(["--json", "out.json", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and "Traceback" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens where there is no GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_speed.main(["--json", str(tmp_path / "out.json"), "--device", "cuda"]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_a_published_product_that_computes_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = checkout(tmp_path / "paper", PRODUCT.replace("tlr,lsr->tsl", "tlr,lsr->tls"))
    assert bench_speed.main(["--json", str(tmp_path / "out.json"), "--reference", str(wrong)]) == 2
    assert "differs from ours" in capsys.readouterr().err
