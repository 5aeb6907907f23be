"""How every command ends: one line for an error, and an exit status.

Status 0: done. 1: failed in work that was begun, or interrupted. 2: input was refused.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

from morenas.base.errors import InputError, RunError

FAILED, REFUSED = 1, 2


@contextlib.contextmanager
def exit_status() -> Iterator[None]:
    """Turn the errors of what is done inside into a line and an exit status.

    Any other error is a fault of morenas or of the machine: it keeps its traceback, and ends with status 1.
    """
    try:
        yield
    except InputError as error:
        refuse(str(error))
    except RunError as error:
        fail(f"failed: {error}")
    except BrokenPipeError:  # of "| head": nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except KeyboardInterrupt:
        fail("interrupted.")


def refuse(message: str) -> NoReturn:
    """End a command whose input is refused."""
    _end(f"error: {message}", REFUSED)


def fail(message: str) -> NoReturn:
    """End a command in work that was begun."""
    _end(message, FAILED)


def _end(message: str, status: int) -> NoReturn:
    print(f"morenas: {message}", file=sys.stderr)
    sys.exit(status)
