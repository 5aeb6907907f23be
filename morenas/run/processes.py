"""A run is one process, whatever started it."""

from __future__ import annotations

import os

from morenas.base.errors import InputError

COUNTS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
"""What torchrun, accelerate, Open MPI and MPICH say of how many processes they have started."""


def check_alone() -> None:
    """Refuse to be one of several processes: each would make the whole run, in the same folder.

    Raises:
        InputError: If a launcher has started several.
    """
    for name in COUNTS:
        count = os.environ.get(name, "")
        if count.isdigit() and int(count) > 1:
            raise InputError(
                f"{name}={count}: a launcher has started {count} processes of this command, and a run is one process. "
                "Start it without torchrun, accelerate launch or mpirun: it takes the one device that device= names. "
                f"If {name} is left over from something else, unset it. Several runs side by side are a sweep: "
                "see --multirun."
            )
