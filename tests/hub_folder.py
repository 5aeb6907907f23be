"""A folder in the place of a hub's repository: ``datasets`` loads one as it loads the other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest


def hub_folder(
    folder: Path, splits: Mapping[str, Sequence[Mapping[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Write the rows of every split, and let no hub be asked."""
    monkeypatch.setenv("MORENAS_HUB_PROBE", "0")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder.parent / "cache")
    folder.mkdir()
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder
