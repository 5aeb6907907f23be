"""One table of many runs."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from morenas.base.errors import InputError
from morenas.compare.command import COMMAND
from morenas.compare.table import compare, settings_of, to_csv, to_markdown
from morenas.run.results import write_results
from morenas.run.words import run_words


def results(
    seed: int, value: float, method: str = "more", rank: int = 0, params: int = 100, words: str = ""
) -> dict[str, Any]:
    row = {
        "name": method,
        "metrics": {"test": {"accuracy": value}, "select": {"accuracy": 0.5}},
        "adapter_params": params,
        "head_params": 10,
        "params_fraction": params / 10_000,
        "learning_rate": 1e-3,
        "steps": 10,
        "seconds": 20.0,
        "details": {"rank": rank} if rank else {},
    }
    kind = "search" if method == "more" else "finetune"
    phases = ["search", "finetune"] if kind == "search" else ["finetune"]
    return {
        "status": "complete",
        "kind": kind,
        "task": "demo",
        "metric": "accuracy",
        "split": "test",
        "model": {"name": "demo", "parameters": 10_000, "fingerprint": "0"},
        "budget": None,
        "methods": [row],
        "value": 0.5,
        "phases": [
            {"name": n, "seconds": 5.0, "steps": 1, "peak_memory_bytes": 2**20 * (i + 1)} for i, n in enumerate(phases)
        ],
        "seed": seed,
        "data": {},
        "versions": {},
        "git_commit": None,
        "device": "cpu",
        "threads": 1,
        "command": f"python -m morenas.{kind} +task=demo seed={seed} {words}",
    }


@pytest.mark.parametrize(
    "change", [{"phases": []}, {"split": "tset"}, {"metric": "f1"}, {"command": "python -m 'morenas"}], ids=str
)
def test_results_whose_parts_do_not_fit_together_are_refused_by_file(change: dict[str, Any], tmp_path: Path) -> None:
    write_results(tmp_path / "results.json", results(0, 0.9) | change)
    with pytest.raises(InputError, match=r"results\.json: its parts do not fit together"):
        compare([tmp_path])


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed, value in enumerate((0.90, 0.94, 0.95)):
        write_results(tmp_path / f"found-{seed}" / "results.json", results(seed, value))
        write_results(tmp_path / f"lora-{seed}" / "results.json", results(seed, value - 0.1, "lora", 32, 2000))
    return tmp_path


def test_seeds_are_averaged_and_parameters_related_to_the_largest_lora(runs: Path) -> None:
    lora, found = sorted(compare([runs]), key=lambda row: row.method)
    assert (lora.method, found.method) == ("LoRA r=32", "MoRe, found")
    assert found.runs == 3
    assert found.mean == statistics.fmean([0.90, 0.94, 0.95])
    assert found.spread == statistics.stdev([0.90, 0.94, 0.95])
    assert found.of_largest_lora == pytest.approx(0.05) and lora.of_largest_lora == 1
    assert (found.search_seconds, found.training_seconds, found.peak_memory_mib) == (5, 20, 2)
    assert lora.search_seconds == 0


def test_runs_of_other_settings_are_rows_of_their_own_and_say_which(runs: Path) -> None:
    for seed in (0, 1):
        other = results(seed, 0.5, words="space=attention training.epochs=1")
        write_results(runs / f"attention-{seed}" / "results.json", other)
    found = {row.settings: row.runs for row in compare([runs]) if row.method == "MoRe, found"}
    assert found == {"": 3, "space=attention training.epochs=1": 2}


def test_a_run_named_twice_counts_once(runs: Path) -> None:
    assert compare([runs, runs / "found-0"]) == compare([runs])


def test_one_run_has_no_spread(runs: Path) -> None:
    assert compare([runs / "found-0"])[0].spread is None


@pytest.mark.parametrize("form", ["markdown", "csv", "json"])
def test_every_format_tells_the_same(runs: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_words(COMMAND, [str(runs), "--format", form])
    text = capsys.readouterr().out
    if form == "markdown":
        assert "| demo | MoRe, found | 3 | test accuracy | 0.9300 ± 0.0265 | - | 100 | 5.0% | 5 | 20 | 2 |" in text
    else:
        rows = json.loads(text) if form == "json" else list(csv.DictReader(io.StringIO(text)))
        assert [row["method"] for row in rows] == [row.method for row in compare([runs])]
        assert [float(row["mean"]) for row in rows] == [row.mean for row in compare([runs])]


def test_a_folder_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"holds no results\.json"):
        compare([tmp_path])
    with pytest.raises(SystemExit) as stop:
        run_words(COMMAND, [str(tmp_path)])
    assert stop.value.code == 2
    assert "morenas: error:" in capsys.readouterr().err


def test_seed_task_and_places_are_no_settings() -> None:
    command = "python -m morenas.search +task=demo seed=3 task.data_dir=d space=attention device=cpu hydra.run.dir=d"
    command += " sweep.again=fail hydra/launcher=joblib"
    assert settings_of(command) == ("space=attention",)


def test_the_same_seed_twice_is_one_run(runs: Path) -> None:
    before = compare([runs])
    write_results(runs / "copy" / "results.json", results(0, 0.90))
    assert compare([runs]) == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"data": {"source": "files", "files": {"train.jsonl": {"sha256": "other"}}}}, "task"),
        ({"model": {"name": "demo", "parameters": 10_000, "fingerprint": "other weights"}}, "model"),
    ],
)
def test_runs_on_other_data_or_weights_are_rows_of_their_own(change: Any, field: str, runs: Path) -> None:
    write_results(runs / "other" / "results.json", results(3, 0.5) | change)
    rows = [row for row in compare([runs]) if row.method == "MoRe, found"]
    assert sorted(row.runs for row in rows) == [1, 3]
    names = [getattr(row, field) for row in rows]
    assert len(set(names)) == 2 and all(name.startswith("demo (") for name in names)


def test_what_depends_on_the_seed_or_the_folder_does_not_keep_runs_apart(runs: Path) -> None:
    for seed, folder in ((3, "here"), (4, "there")):
        data = {"source": "files", "data_dir": folder, "fingerprint": str(seed), "files": {"t": {"sha256": "same"}}}
        write_results(runs / folder / "results.json", results(seed, 0.5) | {"data": data})
    assert sorted(row.runs for row in compare([runs]) if row.method == "MoRe, found") == [2, 3]


NAMES = ["a | b", "a\nb", "=1+1", "+1", "-1", "@x", "`code`", "<script>", "\tx", "\u2028", "\\", "[x](y)"]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_breaks_a_table_or_becomes_a_formula(name: str, tmp_path: Path) -> None:
    write_results(tmp_path / "results.json", results(0, 0.9) | {"task": name})
    rows = compare([tmp_path])
    lines = to_markdown(rows).splitlines()
    assert len(lines) == 3 and len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines}) == 1
    assert not re.search(r"(?<!\\)[`<>]", lines[2])
    (row,) = csv.DictReader(io.StringIO(to_csv(rows)))
    assert row["task"][0] not in "=+-@\t\r\n" and row["task"].removeprefix("'") == name


def test_folders_that_vanish_are_passed_by(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed, scan = compare([runs]), os.scandir
    (runs / "at-work" / "checkpoints").mkdir(parents=True)

    def vanishing(path: Any) -> Any:
        if str(path).endswith("checkpoints"):
            raise FileNotFoundError(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert compare([runs]) == listed
