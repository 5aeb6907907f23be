"""What ``scripts/bench_speed.py`` consists of: a protocol of timing, a file per section, reports."""
