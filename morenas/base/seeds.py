"""Independent random streams from one seed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # seeds are also derived where data are checked, before anything heavy is imported
    import torch


def derive(seed: int, *names: str | int) -> int:
    """Return the seed of the stream called ``names`` under ``seed``, a whole number below 2**63.

    Streams of different names are independent; the same names give the same stream on every machine.
    """
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_pass(seed: int, device: torch.device) -> None:
    """Seed what a pass on ``device`` draws from, dropout above all.

    ``torch.manual_seed`` would also queue a call for every accelerator, which takes time; a run on the CPU needs none.
    """
    import torch

    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
