"""Whether the Hugging Face hub can be reached, found out in seconds and before anything heavy is imported.

Left alone, the libraries retry for up to a minute and then blame something else.
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
    """Something that only the hub, or a copy of it in the local cache, can give.

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
    """Ask the hub for anything; the reason why it cannot be reached, or None. Any HTTP answer means it can."""
    try:
        request = urllib.request.Request(endpoint, method="HEAD", headers={"User-Agent": "morenas"})
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
            return None
    except urllib.error.HTTPError:
        return None
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__


def _offline() -> bool:
    """Whether the environment forbids to ask the hub; datasets has a word of its own for it."""
    from huggingface_hub import constants

    word = os.environ.get("HF_DATASETS_OFFLINE", "")
    return constants.HF_HUB_OFFLINE or word.upper() in constants.ENV_VARS_TRUE_VALUES


def _stay_offline() -> None:
    """Tell the libraries to use their caches; those already imported read the environment no more."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True
    if "datasets.config" in sys.modules:
        sys.modules["datasets.config"].HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
