"""Progress on screen, metrics to files and dashboards, and the closing table and report of a run."""

from morenas.tracking.tracker import TrackedRun, Tracker

__all__ = ["TrackedRun", "Tracker"]
