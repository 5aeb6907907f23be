"""Weights & Biases: curves, the architecture as table and heat map, sortable summaries, artifacts."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import ssl
import time
import uuid
from collections.abc import Mapping
from configparser import ConfigParser, ParsingError
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPException
from netrc import NetrcParseError, netrc
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

from morenas.base.errors import InputError, one_line
from morenas.base.files import write_text
from morenas.base.settings import check_names, one_of
from morenas.tracking.tracker import TrackedRun, Tracker

FIRST_HOST = "api.wandb.ai"  # keys kept under this name open the public server whatever its name is now
PROBE_SECONDS = 4.0
SERVER_SECONDS = 4.0
"""What a server may take altogether until a run has begun; wandb needs some tenths more to give up."""
GATEWAY = 500  # the first HTTP status of a server that fails
SILENT: set[str] = set()
"""Servers that did not answer; the jobs of a sweep, which share a process, do not ask them again."""
OUTSIDE = {"disabled": "disabled", "offline": "offline", "dryrun": "offline"}
"""What ``WANDB_MODE`` and the settings file may forbid."""
TRUE = ("1", "true", "yes", "on")
NAME_LENGTH, TAG_LENGTH = 128, 64
"""Characters that W&B's server takes."""

Mode = Literal["online", "offline", "disabled"]


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
        for name, value in (("project", self.project), ("group", self.group)):
            if value is not None and not 1 <= len(value) <= NAME_LENGTH:
                raise InputError(f"tracking.wandb.{name}: has {len(value)} characters; W&B takes 1 to {NAME_LENGTH}.")
        if found := set(self.project) & set("/\\#?%:"):
            raise InputError(f"tracking.wandb.project={self.project}: W&B takes no {' '.join(sorted(found))} in it.")
        for tag in self.tags:
            if not 1 <= len(tag) <= TAG_LENGTH:
                raise InputError(
                    f"tracking.wandb.tags: '{tag[:20]}' has {len(tag)} characters; W&B takes 1 to {TAG_LENGTH}."
                )

    def open(self, run: TrackedRun) -> None:
        """Begin the run, or go on with it; W&B's own files go to ``wandb`` in the run directory."""
        os.environ.setdefault("WANDB_SILENT", "true")
        # wandb tells yet another server of its own errors, and where none answers it waits for that at the end
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        begun = time.monotonic()
        mode = choose_mode(self.mode)
        try:
            self.run = self._begin(run, mode, max(1.0, SERVER_SECONDS - (time.monotonic() - begun)))
        except Exception as error:  # of three libraries, whatever a server or a login may do
            if mode != "online":
                raise
            SILENT.add(_server())
            print(f"W&B: {one_line(error)}; this run is kept offline.")
            id_file(run.directory).unlink()  # wandb's own process still holds the id that could not begin
            mode, self.run = "offline", self._begin(run, "offline")
        if mode == "offline":
            print(f"W&B is offline; to send this run: wandb sync {shlex.quote(str(Path(self.run.dir).parent))}")

    def _begin(self, run: TrackedRun, mode: Mode, seconds: float = SERVER_SECONDS) -> Any:
        import wandb

        if mode == "disabled":
            return wandb.init(mode="disabled", reinit="finish_previous")
        return wandb.init(
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
            settings=wandb.Settings(silent=True, init_timeout=seconds, console="off"),
        )

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


def id_file(directory: Path) -> Path:
    """Where a run directory keeps the run's id at W&B."""
    return directory / "wandb" / "run-id"


def kept_id(directory: Path) -> str:
    """The run's id at W&B, kept so that a resumed run continues the same curves."""
    path = id_file(directory)
    if not path.exists():
        write_text(path, uuid.uuid4().hex[:12])
    return path.read_text()


def choose_mode(mode: str) -> Mode:
    """Settle "auto"; what the environment or wandb's settings file forbids stays forbidden, whatever the mode.

    ``WANDB_MODE``, ``WANDB_DISABLED`` and ``wandb offline`` say how W&B is used on this machine: an explicit mode would
    override them in ``wandb.init``. A server that does not answer is said once; the run is then kept offline.
    """
    said, words = _said_outside()
    if "disabled" in (mode, said):
        if mode in ("online", "offline"):
            print(f"W&B: {words} switches it off, in spite of tracking.wandb.mode={mode}.")
        return "disabled"
    if "offline" in (mode, said):
        if mode == "online":
            print(f"W&B: {words} keeps this run offline, in spite of tracking.wandb.mode=online.")
        return "offline"
    url = _server()
    if mode == "auto" and not _has_login(url):
        return "offline"
    if url not in SILENT and _answers(url):
        return "online"
    SILENT.add(url)
    print(f"W&B: {url} does not answer; this run is kept offline.")
    return "offline"


def _said_outside() -> tuple[str, str]:
    """The mode that the environment or wandb's settings file asks for, empty for none; and where it says so."""
    for name in ("WANDB_DISABLED", "WANDB_MODE"):
        value = os.environ.get(name, "").strip().lower()
        if mode := (OUTSIDE.get(value, "") if name == "WANDB_MODE" else "disabled" * (value in TRUE)):
            return mode, f"{name}={value}"
    return OUTSIDE.get(_mode_of_files(), ""), "wandb's settings file"


@cache
def _mode_of_files() -> str:
    """What ``wandb offline`` wrote. Read once: the settings of ``wandb.setup`` take over what runs are given."""
    import wandb

    settings, mode = wandb.setup().settings, ""
    for path in (settings.settings_system, settings.settings_workspace):
        files = ConfigParser(interpolation=None)
        with contextlib.suppress(ParsingError, OSError, UnicodeDecodeError):
            files.read(path or ())
            mode = files.get("default", "mode", fallback=mode)
    return mode.strip().lower()


def _server() -> str:
    import wandb

    return str(wandb.setup().settings.base_url)


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
    """Whether a server says anything to the first question that wandb puts to it; proxies are those of the environment.

    A server may take the connection and never answer, or answer a byte at a time: the whole has one deadline.
    """
    said = Event()
    Thread(target=_ask, args=(url, said), daemon=True).start()
    return said.wait(PROBE_SECONDS)


def _ask(url: str, said: Event) -> None:
    question = Request(f"{url}/graphql", b'{"query": "{ viewer { id } }"}', {"Content-Type": "application/json"})
    try:
        urlopen(question, timeout=PROBE_SECONDS).close()
    except HTTPError as error:
        if error.code >= GATEWAY:  # a proxy answers for a server that is not there
            return
    except URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # wandb may know certificates that Python does not
            return
    except (OSError, HTTPException, ValueError):
        return
    said.set()
