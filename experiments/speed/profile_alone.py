"""Where the time of one Monarch product goes, forward and backward, by operation.

    PYTHONPATH=scripts python experiments/speed/profile_alone.py <width> <tokens> <r>

N = 4. Prints each operation's share, calls and microseconds a pass, and what is left for Python, dispatch and autograd.
"""

from __future__ import annotations

import sys

import torch
from speed.contestants import Layer, alone, tensors
from speed.settings import Bench

PASSES = 50


def main(width: int, tokens: int, blk_r: int) -> None:
    """Profile ``alone/more`` of the bench."""
    bench = Bench()
    torch.set_num_threads(bench.threads)
    layer = Layer(width, width, tokens, 4, blk_r)
    x, upstream = tensors(bench, layer)
    product = alone(bench, layer)["alone/more"]
    for _ in range(PASSES):
        product.both(x, upstream)
    with torch.profiler.profile() as profile:
        for _ in range(PASSES):
            product.both(x, upstream)
    events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    for event in events[:8]:
        share, each = event.self_cpu_time_total / total, event.self_cpu_time_total / PASSES
        print(f"{share:6.1%} {event.count / PASSES:5.0f} calls {each:8.1f} us  {event.key}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
