"""What a run shows: progress on screen, metrics to files and dashboards, and the closing table and report."""

from morenas.tracking.tracker import TrackedRun, Tracker

__all__ = ["TrackedRun", "Tracker"]
