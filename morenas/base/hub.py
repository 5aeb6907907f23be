"""Check in seconds whether the Hugging Face hub can be reached, before anything heavy is imported.

Without this check the libraries retry for up to a minute, and their error names another cause.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from morenas.base.errors import InputError

PROBE_SECONDS = 3.0


@dataclass(frozen=True)
class Need:
    """A model or data set that comes from the hub or its local cache.

    Attributes:
        kind: "model" or "dataset".
        name: Its name on the hub.
        way_out: What to type in order to use local files instead.
    """

    kind: str
    name: str
    way_out: str

    def cached(self) -> bool:
        """Whether the local cache of the hub holds a copy."""
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=self.name, repo_type=self.kind), "snapshots")
        return folder.is_dir() and any(folder.iterdir())


def require_hub(*needs: Need) -> None:
    """Make sure that everything named can be loaded: from the hub, or from the local cache without asking the hub.

    Set ``MORENAS_HUB_PROBE=0`` where the probe fails although the libraries would get through, behind a proxy say.

    Raises:
        InputError: If the hub is out of reach and something is not in the cache; names it and the ways out.
    """
    if not needs or os.environ.get("MORENAS_HUB_PROBE") == "0":
        return
    from huggingface_hub import constants  # not at the top: with local files nothing of the hub is imported

    reason = "HF_HUB_OFFLINE is set" if _offline() else _probe(constants.ENDPOINT)
    if reason is None:
        return
    missing = [need for need in needs if not need.cached()]
    if missing:
        what = " and ".join(f"{need.kind} '{need.name}'" for need in missing)
        local = " ".join(need.way_out for need in missing)
        raise InputError(
            f"The Hugging Face hub ({constants.ENDPOINT}) cannot be reached ({reason}), and {what} "
            f"{'is' if len(missing) == 1 else 'are'} not in the local cache. Two ways out: use local files, {local}; "
            "or run the demo, which needs no network: +task=demo."
        )
    _stay_offline()


@cache
def _probe(endpoint: str) -> str | None:
    """Why the hub cannot be reached, or None if it can. Any HTTP answer, errors too, means that it can."""
    try:
        request = urllib.request.Request(endpoint, method="HEAD", headers={"User-Agent": "morenas"})
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
            return None
    except urllib.error.HTTPError:
        return None
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__


def _offline() -> bool:
    """Whether the environment says to stay offline; datasets has a variable of its own for it."""
    from huggingface_hub import constants

    datasets = os.environ.get("HF_DATASETS_OFFLINE", "")
    return constants.HF_HUB_OFFLINE or datasets.upper() in constants.ENV_VARS_TRUE_VALUES


def _stay_offline() -> None:
    """Set the libraries to use their caches; those already imported do not read the environment again."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True
    if "datasets.config" in sys.modules:
        sys.modules["datasets.config"].HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
