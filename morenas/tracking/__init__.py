"""What a run tells: progress on screen, metrics to files and dashboards, and the closing table and report."""
