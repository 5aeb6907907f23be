"""Weights & Biases: curves, the architecture as table and heat map, sortable summaries, artifacts."""

from __future__ import annotations

import io
import json
import os
import socket
import uuid
from collections.abc import Mapping
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

import wandb
from matplotlib.figure import Figure
from PIL import Image

from morenas.base.files import write_text
from morenas.tracking.figures import architecture_figure

FIRST_HOST = "api.wandb.ai"  # keys kept under this name open the public server whatever its name is now
PROBE_SECONDS = 3.0
INIT_SECONDS = 20.0


class WandbTracker:
    """One W&B run."""

    def __init__(
        self,
        mode: str,
        directory: Path,
        name: str,
        config: Mapping[str, Any],
        project: str,
        entity: str | None,
        group: str | None,
        tags: list[str],
        job_type: str,
    ) -> None:
        """Begin a run, online or offline.

        Args:
            mode: "auto" (online where a login is configured and the server answers, else offline), "online" or
                "offline".
            directory: Run directory; W&B's own files go to its ``wandb`` folder.
        """
        self.mode = choose_mode(mode)
        os.environ.setdefault("WANDB_SILENT", "true")
        self.run = wandb.init(
            id=run_id(directory),
            resume="allow",
            mode=self.mode,
            dir=str(directory),
            name=name,
            config=dict(config),
            project=project,
            entity=entity,
            group=group,
            tags=tags or None,
            job_type=job_type,
            # In a sweep many runs share a process.
            reinit="finish_previous",
            settings=wandb.Settings(silent=True, init_timeout=INIT_SECONDS, console="off"),
        )
        if self.mode == "offline":
            print(f"W&B is offline; to send this run: wandb sync {Path(self.run.dir).parent}")

    def start(self, phase: str, done: int) -> None:
        """Let the phase's curves run over the phase's own steps."""
        self.run.define_metric(f"{phase}/step", hidden=True)
        self.run.define_metric(f"{phase}/*", step_metric=f"{phase}/step")

    def log(self, phase: str, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log({f"{phase}/step": step, **metrics})

    def architecture(self, architecture: Any) -> None:
        """Log the architecture as a table, a heat map and an artifact."""
        columns: list[str | int] = ["module", "nblocks", "blk_r", "in_features", "out_features", "params"]
        rows = [
            [name, s.nblocks, s.blk_r, s.in_features, s.out_features, s.params]
            for name, s in architecture.modules.items()
        ]
        table, figure = wandb.Table(columns=columns, data=rows), architecture_figure(architecture.shapes())
        self.run.log({"architecture/table": table, "architecture/heatmap": _image(figure)})
        artifact = wandb.Artifact(f"architecture-{self.run.id}", type="architecture")
        with artifact.new_file("architecture.json") as file:
            json.dump(architecture.document(), file, indent=2)
        self.run.log_artifact(artifact)

    def summary(self, values: Mapping[str, Any]) -> None:
        self.run.summary.update(dict(values))

    def artifact(self, path: Path, kind: str) -> None:
        """Log a folder as an artifact."""
        artifact = wandb.Artifact(f"{kind}-{self.run.id}", type=kind)
        for file in sorted(path.rglob("*")):  # add_dir prints a line of its own
            if file.is_file():
                artifact.add_file(str(file), name=str(file.relative_to(path)))
        self.run.log_artifact(artifact)

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


def run_id(directory: Path) -> str:
    """The run's name at W&B, kept in the run directory, so that a resumed run goes on in the same curves."""
    path = directory / "wandb" / "run-id"
    if not path.exists():
        write_text(path, uuid.uuid4().hex[:12])
    return path.read_text()


def _image(figure: Figure) -> wandb.Image:
    """A figure as an image: handed the figure itself, wandb reaches for pyplot's global state."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return wandb.Image(Image.open(buffer))


def choose_mode(mode: str) -> Literal["online", "offline"]:
    """Settle "auto"; an explicit "online" must answer.

    Raises:
        ConnectionError: If "online" was asked for and the server does not answer.
    """
    if mode == "offline" or os.environ.get("WANDB_MODE") == "offline":
        return "offline"
    url = wandb.setup().settings.base_url
    if mode == "auto" and not _has_login(url):
        return "offline"
    if _answers(url):
        return "online"
    if mode == "online":
        raise ConnectionError(f"{url} does not answer; use tracking.wandb.mode=offline")
    print(f"W&B: {url} does not answer; this run is kept offline.")
    return "offline"


def _has_login(url: str) -> bool:
    """Whether a key for the server is configured; ``wandb.Api()`` and ``wandb.login()`` would ask for one."""
    settings = wandb.setup().settings
    if settings.api_key or settings.identity_token_file:
        return True
    home = Path.home()
    path = Path(os.environ.get("NETRC") or (home / ".netrc" if (home / ".netrc").exists() else home / "_netrc"))
    try:
        keys = netrc(path.expanduser())
    except (OSError, NetrcParseError):
        return False
    hosts = [urlparse(url).netloc] + [FIRST_HOST] * (url == wandb.Settings().base_url)
    return any(keys.authenticators(host) for host in hosts)


def _answers(url: str) -> bool:
    # Behind a proxy a direct connection fails although wandb would get through.
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")):
        return True
    parsed = urlparse(url)
    address = (parsed.hostname or "", parsed.port or (80 if parsed.scheme == "http" else 443))
    try:
        with socket.create_connection(address, timeout=PROBE_SECONDS):
            return True
    except OSError:
        return False
