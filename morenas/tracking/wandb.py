"""Weights & Biases: curves, the architecture as table and heat map, sortable summaries, artifacts."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from morenas.base.files import write_text
from morenas.base.settings import check_names, one_of
from morenas.tracking.tracker import TrackedRun, Tracker

FIRST_HOST = "api.wandb.ai"  # keys kept under this name open the public server whatever its name is now
PROBE_SECONDS = 3.0
INIT_SECONDS = 20.0


@dataclass
class WandbTracker(Tracker):
    """One W&B run.

    Attributes:
        mode: "auto": online where a login is configured and the server answers, else offline; "online"; "offline":
            files to be sent later; "disabled".
        project: Project that the run is filed under.
        entity: User or team that the project belongs to; null: the login's own.
        group: Group that the run belongs to; null: the sweep's name in a sweep.
        tags: Words that runs are found by.
    """

    mode: str = one_of(("auto", "online", "offline", "disabled"), "auto")
    project: str = "morenas"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_names(self, "tracking.wandb")

    def open(self, run: TrackedRun) -> None:
        """Begin the run, or go on with it; W&B's own files go to ``wandb`` in the run directory."""
        import wandb

        mode = choose_mode(self.mode)
        os.environ.setdefault("WANDB_SILENT", "true")
        self.run = wandb.init(
            id=kept_id(run.directory),
            resume="allow",
            mode=mode,
            dir=str(run.directory),
            name=run.name,
            config=dict(run.config),
            project=self.project,
            entity=self.entity,
            group=self.group,
            tags=list(self.tags) or None,
            job_type=run.command,
            # In a sweep many runs share a process.
            reinit="finish_previous",
            settings=wandb.Settings(silent=True, init_timeout=INIT_SECONDS, console="off"),
        )
        if mode == "offline":
            print(f"W&B is offline; to send this run: wandb sync {Path(self.run.dir).parent}")

    def start(self, phase: str, done: int) -> None:
        """Let the phase's curves run over the phase's own steps."""
        self.run.define_metric(f"{phase}/step", hidden=True)
        self.run.define_metric(f"{phase}/*", step_metric=f"{phase}/step")

    def log(self, phase: str, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log({f"{phase}/step": step, **metrics})

    def architecture(self, architecture: Any) -> None:
        """Log the architecture as a table, a heat map and an artifact."""
        import wandb

        from morenas.tracking.figures import architecture_figure, picture

        columns: list[str | int] = ["module", "nblocks", "blk_r", "in_features", "out_features", "params"]
        rows = [
            [name, s.nblocks, s.blk_r, s.in_features, s.out_features, s.params]
            for name, s in architecture.modules.items()
        ]
        # Handed the figure itself, wandb reaches for pyplot's global state.
        heatmap = wandb.Image(picture(architecture_figure(architecture.shapes())))
        self.run.log({"architecture/table": wandb.Table(columns=columns, data=rows), "architecture/heatmap": heatmap})
        artifact = wandb.Artifact(f"architecture-{self.run.id}", type="architecture")
        with artifact.new_file("architecture.json") as file:
            json.dump(architecture.document(), file, indent=2)
        self.run.log_artifact(artifact)

    def summary(self, values: Mapping[str, Any]) -> None:
        self.run.summary.update(dict(values))

    def artifact(self, path: Path, kind: str) -> None:
        """Log a folder as an artifact."""
        import wandb

        artifact = wandb.Artifact(f"{kind}-{self.run.id}", type=kind)
        for file in sorted(path.rglob("*")):  # add_dir prints a line of its own
            if file.is_file():
                artifact.add_file(str(file), name=str(file.relative_to(path)))
        self.run.log_artifact(artifact)

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


def kept_id(directory: Path) -> str:
    """The run's id at W&B, kept in the run directory so that a resumed run continues the same curves."""
    path = directory / "wandb" / "run-id"
    if not path.exists():
        write_text(path, uuid.uuid4().hex[:12])
    return path.read_text()


def choose_mode(mode: str) -> Literal["online", "offline", "disabled"]:
    """Settle "auto"; an explicit "online" must answer.

    Raises:
        ConnectionError: If the mode is "online" and the server does not answer.
    """
    if mode == "disabled":
        return "disabled"
    import wandb

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
    import wandb

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
