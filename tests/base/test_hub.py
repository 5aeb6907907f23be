"""Whether the hub can be reached is found out first, and what lies in its cache needs no hub."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from morenas.base import hub
from morenas.base.errors import InputError
from morenas.base.hub import Need, require_hub

NEEDS = (
    Need("model", "owner/model", "model.name_or_path=<folder>"),
    Need("dataset", "owner/data", "task.data_dir=<folder>"),
)


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "_stay_offline", lambda: None)
    return tmp_path


@pytest.mark.usefixtures("unreachable")
def test_a_hub_out_of_reach_is_reported_at_once_with_both_ways_out() -> None:
    began = time.monotonic()
    with pytest.raises(InputError) as error:
        require_hub(*NEEDS)
    assert time.monotonic() - began < 10
    for said in ("127.0.0.1:9", "owner/model", "owner/data", "model.name_or_path=", "task.data_dir=", "+task=demo"):
        assert said in str(error.value)


def test_what_is_in_the_cache_needs_no_hub(unreachable: Path) -> None:
    (unreachable / "models--owner--model" / "snapshots" / "abc").mkdir(parents=True)
    require_hub(NEEDS[0])
    with pytest.raises(InputError, match="dataset 'owner/data' is not in the local cache"):
        require_hub(*NEEDS)


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize("word", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_the_hub_is_not_probed_where_the_environment_says_offline(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[str] = []
    monkeypatch.setattr(hub, "_probe", probed.append)
    if word == "HF_HUB_OFFLINE":
        monkeypatch.setattr(constants, word, True)
    else:
        monkeypatch.setenv(word, "yes")
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        require_hub(NEEDS[0])
    assert probed == []


def test_libraries_already_imported_are_set_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    hub._stay_offline()
    assert constants.HF_HUB_OFFLINE and datasets.config.HF_HUB_OFFLINE and os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.usefixtures("unreachable")
def test_the_probe_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[str] = []
    monkeypatch.setattr("morenas.base.hub._probe", probed.append)
    monkeypatch.setenv("MORENAS_HUB_PROBE", "0")
    require_hub(*NEEDS)
    assert probed == []


def test_the_hub_is_not_probed_where_nothing_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[str] = []
    monkeypatch.setattr("morenas.base.hub._probe", probed.append)
    require_hub()
    assert probed == []
