"""What every test may rely on: no network, no dashboards, one thread, and real data where there is some."""

from __future__ import annotations

import gc
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

# Before any of the libraries is imported: they read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Results are compared bit for bit, and the suite may share its machine.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import pytest

from morenas.base.registry import REGISTRIES, register

if TYPE_CHECKING:  # imported in the fixtures: the process that hands tests out to others needs none of the libraries
    from forked import Forked
    from tiny_runs import CommandLine

gc.disable()  # until all is collected: importing leaves no garbage, and looking for it takes a sixth of the time


DEAREST = (
    "tests/reliability/test_accidents.py",
    "tests/test_refusals.py",
    "tests/test_examples.py",
    "tests/benchmark/test_run.py",
    "tests/search/test_phase.py",
    "tests/run/test_configs.py",
    "tests/test_language_runs.py",
    "tests/search/test_engine.py",
    "tests/run/test_launch.py",
    "tests/test_resume.py",
    "tests/test_quantized.py",
    "tests/search/test_spectral_start.py",
)
"""Files of ten seconds and more. They go first, so that two processes are done at the same time."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep the order below; xdist would begin with the files of most tests."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The dearest files first."""
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in DEAREST)


def pytest_collection_finish() -> None:
    """Leave what the libraries hold alone from now on: looking through it for garbage takes longer than many a test."""
    gc.collect()
    gc.freeze()
    gc.enable()
    if accelerate := sys.modules.get("accelerate.utils.memory"):  # which looks through it before every training
        accelerate.gc = SimpleNamespace(collect=lambda: 0)  # type: ignore[attr-defined]
    if datasets := sys.modules.get("datasets.arrow_dataset"):  # which pickles every table to give it a name
        datasets.generate_fingerprint = lambda dataset: secrets.token_hex(8)  # type: ignore[attr-defined]
    if jinja := sys.modules.get("jinja2.environment"):  # which compiles the template of a card for every adapter
        jinja.Environment.compile = cache(jinja.Environment.compile)
    if (torch := sys.modules.get("torch")) and not torch.accelerator.is_available():
        for device in (torch.cuda, torch.xpu, torch.mtia):  # each notes the whole call stack at every seed
            device.manual_seed_all = lambda seed: None


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Tests kill processes, but never the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


def _real(kind: str) -> Path:
    root = Path(os.environ.get("MORENAS_REALDATA", Path(__file__).resolve().parents[2] / "shared"))
    if not (root / kind).is_dir():
        pytest.skip(f"no real {kind}: {root / kind} is not there; set MORENAS_REALDATA to a folder that holds '{kind}'")
    return root / kind


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder of real data sets, ``glue/<task>/train.jsonl`` and so on."""
    return _real("data")


@pytest.fixture(scope="session")
def real_models() -> Path:
    """A folder of pretrained models, such as ``all-MiniLM-L6-v2-fp16``."""
    return _real("models")


@pytest.fixture(scope="session", autouse=True)
def _wandb_in_tmp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp("wandb")))
        yield


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    """Runs programs in processes of their own, in which file operations can go wrong where there is a C compiler."""
    import faults
    from forked import Forked

    library = faults.compiled(tmp_path_factory.mktemp("faults"))
    with Forked(faults.preloading(library) if library else {}) as forked:
        yield forked


@pytest.fixture
def reporting_command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    """Runs a command of the package in this process: ``command("search", "+task=demo", ...)``."""
    from tiny_runs import CommandLine

    return CommandLine(monkeypatch, capfd)


@pytest.fixture
def command(reporting_command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The same without report.html: drawing it takes longer than a tiny run."""
    monkeypatch.setattr("morenas.run.publish.write_report", lambda directory, results: None)
    return reporting_command


@pytest.fixture
def doors(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, Any], None]:
    """``register``, whose effect ends with the test."""
    for each in REGISTRIES.values():
        monkeypatch.setattr(each, "_targets", dict(each._targets))
    return register


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny BERT of one layer without a head, and its tokenizer."""
    from tiny_models import save_tiny

    return save_tiny("bert", tmp_path_factory.mktemp("tiny-bert"), num_hidden_layers=1)


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl and validation.jsonl of a task that a tiny model can learn."""
    from tiny_runs import write_task

    return write_task(tmp_path_factory.mktemp("tiny-task"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a tiny causal language model of one layer."""
    from tiny_models import save_tiny_causal

    return save_tiny_causal(tmp_path_factory.mktemp("models") / "llama", "llama", num_hidden_layers=1)


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of record files."""
    from tiny_runs import write_records

    return write_records(tmp_path_factory.mktemp("records"))


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What is there once code has run that a pickle holds."""
    import pickle

    from hostile import Evil

    mark = tmp_path / "code-ran"
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists()  # the trap works
    mark.unlink()
    return mark
