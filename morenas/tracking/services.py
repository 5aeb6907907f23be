"""TensorBoard, Trackio, MLflow, Aim, Comet and SwanLab as trackers.

None needs an account as set here: their files go to a folder of their name in the run directory.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from morenas.base.settings import one_of
from morenas.tracking.accelerate import ARCHITECTURE, AccelerateTracker
from morenas.tracking.tracker import TrackedRun

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker
    from matplotlib.figure import Figure


@dataclass
class TensorBoard(AccelerateTracker):
    """Event files of TensorBoard; to look at them, ``tensorboard --logdir <run directory>``."""

    name = package = module = "tensorboard"

    def connect(self, run: TrackedRun, folder: Path, known: str | None) -> GeneralTracker:
        from accelerate.tracking import TensorBoardTracker

        return TensorBoardTracker(folder.name, folder.parent)

    def show(self, figure: Figure) -> None:
        self.service.tracker.add_figure(ARCHITECTURE, figure)


@dataclass
class Trackio(AccelerateTracker):
    """Trackio; to look at it, ``TRACKIO_DIR=<run directory>/trackio trackio show``.

    Where ``TRACKIO_DIR`` is set, runs are kept there. Trackio reads it once a process: a sweep in one process keeps all
    its runs with the first.

    Attributes:
        project: Project that the run is filed under.
        space_id: Space on the Hugging Face hub that shows it, "owner/name"; null: this machine alone.
    """

    name = package = module = "trackio"
    project: str = "morenas"
    space_id: str | None = None

    def connect(self, run: TrackedRun, folder: Path, known: str | None) -> GeneralTracker:
        os.environ.setdefault("TRACKIO_DIR", str(folder))
        from accelerate.tracking import TrackioTracker

        # Trackio knows a run by its name alone, and the runs of a sweep may share ours.
        name = known or f"{run.name}-{uuid.uuid4().hex[:6]}"
        return TrackioTracker(self.project, name=name, resume="allow", space_id=self.space_id, embed=False)

    def identity(self) -> str:
        return str(self.service.tracker.name)

    def show(self, figure: Figure) -> None:
        import trackio

        from morenas.tracking.figures import picture

        self.service.log({ARCHITECTURE: trackio.Image(picture(figure))})


@dataclass
class MLflow(AccelerateTracker):
    """MLflow; to look at it, ``mlflow ui --backend-store-uri sqlite:///<run directory>/mlflow/mlflow.db``.

    Attributes:
        uri: Where runs are kept, such as "http://server:5000"; null: ``MLFLOW_TRACKING_URI`` where that is set, else a
            SQLite file in the run directory.
        experiment: Experiment that the run is filed under.
    """

    name = package = module = "mlflow"
    uri: str | None = None
    experiment: str = "morenas"

    def connect(self, run: TrackedRun, folder: Path, known: str | None) -> GeneralTracker:
        import mlflow
        from accelerate.tracking import MLflowTracker

        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(uri or f"sqlite:///{folder / 'mlflow.db'}")
        if uri is None:  # MLflow has written it into the environment, where the next run of a sweep would find it
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        return MLflowTracker(
            self.experiment,
            logging_dir=None if uri else (folder / "artifacts").as_uri(),
            run_id=known,
            run_name=run.name,
        )

    def identity(self) -> str:
        return str(self.service.tracker.info.run_id)

    def show(self, figure: Figure) -> None:
        self.service.log_figure(figure, f"{ARCHITECTURE}.png")

    def close(self, failed: bool) -> None:
        import mlflow

        mlflow.end_run("FAILED" if failed else "FINISHED")


@dataclass
class Aim(AccelerateTracker):
    """Aim; to look at it, ``aim up --repo <run directory>/aim``.

    Attributes:
        repo: Folder of the Aim repository that the run goes to; null: one in the run directory.
        experiment: Experiment that the run is filed under.
    """

    name = package = module = "aim"
    repo: str | None = None
    experiment: str = "morenas"

    def connect(self, run: TrackedRun, folder: Path, known: str | None) -> GeneralTracker:
        from accelerate.tracking import AimTracker

        repo = Path(self.repo or folder)
        repo.mkdir(parents=True, exist_ok=True)
        return AimTracker(
            run.name,
            str(repo),
            run_hash=known,
            experiment=self.experiment,
            system_tracking_interval=None,
            capture_terminal_logs=False,
        )

    def identity(self) -> str:
        return str(self.service.tracker.hash)

    def show(self, figure: Figure) -> None:
        from morenas.tracking.figures import picture

        self.service.log_images({ARCHITECTURE: picture(figure)})


@dataclass
class Comet(AccelerateTracker):
    """Comet; offline, to send a run: ``comet upload <run directory>/comet/*.zip``.

    Attributes:
        project: Project that the run is filed under.
        workspace: Workspace of the project; null: the account's own.
        online: Send the run as it goes; needs an account and its key. False: a file to be sent later.
    """

    name, package, module = "comet", "comet_ml", "comet_ml"
    project: str = "morenas"
    workspace: str | None = None
    online: bool = False

    def connect(self, run: TrackedRun, folder: Path, known: str | None) -> GeneralTracker:
        from accelerate.tracking import CometMLTracker
        from comet_ml import ExperimentConfig

        settings = ExperimentConfig(
            name=run.name,
            offline_directory=str(folder),
            auto_output_logging="simple",
            auto_param_logging=False,
            auto_metric_logging=False,
            log_code=False,
            parse_args=False,
            display_summary_level=0,
        )
        return CometMLTracker(
            self.project,
            workspace=self.workspace,
            online=self.online,
            mode="get_or_create",
            experiment_key=known,
            experiment_config=settings,
        )

    def identity(self) -> str:
        return str(self.service.tracker.get_key())

    def show(self, figure: Figure) -> None:
        self.service.tracker.log_figure(ARCHITECTURE, figure)


@dataclass
class SwanLab(AccelerateTracker):
    """SwanLab; to look at it, ``swanlab watch <run directory>/swanlab``.

    Attributes:
        project: Project that the run is filed under.
        workspace: Workspace of the project; null: the account's own.
        mode: "local": files on this machine; "offline": files to be sent later; "online": needs an account.
    """

    name, package, module = "swanlab", "swanlab[dashboard]", "swanboard"
    project: str = "morenas"
    workspace: str | None = None
    mode: str = one_of(("local", "offline", "online"), "local")

    def connect(self, run: TrackedRun, folder: Path, known: str | None) -> GeneralTracker:
        from accelerate.tracking import SwanLabTracker

        return SwanLabTracker(
            self.project,
            name=run.name,
            log_dir=str(folder),
            mode=self.mode,
            workspace=self.workspace,
            job_type=run.command,
            reinit=True,
        )

    def show(self, figure: Figure) -> None:
        from morenas.tracking.figures import picture

        self.service.log_images({ARCHITECTURE: [picture(figure)]})
