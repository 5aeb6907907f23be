"""An installed wheel works from any directory, without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(words: list[str], directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=directory, env={**os.environ, **environment}, capture_output=True, text=True, timeout=280
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)], folder)
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("morenas-*.whl")
    return found


@pytest.mark.slow
def test_it_carries_configs_schemas_templates_and_the_demo_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("configs/search.yaml", "configs/task/glue/rte.yaml", "assets/demo/model.safetensors"):
        assert f"morenas/{name}" in names
    assert "morenas/assets/schemas/results.schema.json" in names
    assert {"morenas/assets/templates/report.html.jinja", "morenas/assets/templates/card.md.jinja"} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"morenas"}


@pytest.mark.slow
def test_a_search_runs_from_it_in_any_directory(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    installed = run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "-t", str(site), str(wheel)], tmp_path)
    assert installed.returncode == 0, installed.stderr
    (tmp_path / "elsewhere").mkdir()
    words = ["+task=demo", "training.max_steps=2", "search.steps=3", "task.max_examples=100", "tracking=local"]
    # -P: the current directory is not on the path; -S would lose the environment's own packages.
    done = run(
        [sys.executable, "-P", "-m", "morenas.search", *words, "hydra.run.dir=out"],
        tmp_path / "elsewhere",
        PYTHONPATH=str(site),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "elsewhere" / "out" / "results.json").exists()
    where = run([sys.executable, "-P", "-c", "import morenas; print(morenas.__file__)"], tmp_path, PYTHONPATH=str(site))
    assert where.stdout.strip().startswith(str(site))
