"""How every command ends: one line for an error, and an exit status.

Status 0: done. 1: failed in work that was begun, or interrupted. 2: input was refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

from morenas.base.errors import InputError, RunError, WriteError

FAILED, REFUSED = 1, 2
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextlib.contextmanager
def exit_status() -> Iterator[None]:
    """Turn the errors of what is done inside into a line and an exit status.

    Any other error is a fault of morenas or of the machine: it keeps its traceback, and ends with status 1.
    """
    try:
        with _terminable():
            yield
        sys.stdout.flush()
    except InputError as error:
        refuse(str(error))
    except RunError as error:
        fail(f"failed: {error}")
    except BrokenPipeError:  # of "| head": nobody reads on
        _give_up_output()
        sys.exit(FAILED)
    except OSError as error:
        if (lost := unwritten(error)) is None:
            raise
        fail(f"failed: {lost}; once it can be, run the same command again.")
    except KeyboardInterrupt:
        fail("interrupted.")


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM, which schedulers send some time before they kill, end the work as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say what a signal does
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is signal.default_int_handler:
            signal.signal(signal.SIGTERM, before)


def unwritten(error: BaseException) -> WriteError | None:
    """The error of writing that an error is; None if it is none.

    The package names what it writes. Standard output, which may lead into a file, and what libraries write for the time
    being have no names.
    """
    if isinstance(error, WriteError) or not isinstance(error, OSError):
        return error if isinstance(error, WriteError) else None
    if error.filename is None and _output_is_lost():
        return WriteError(error.errno, error.strerror, "standard output")
    if error.errno not in NO_ROOM:
        return None
    return WriteError(error.errno, error.strerror, error.filename or "standard output or a temporary file")


def _output_is_lost() -> bool:
    """Whether standard output takes nothing more; what is held back for it is given up then."""
    try:
        sys.stdout.flush()
    except OSError:
        _give_up_output()
        return True
    return False


def _give_up_output() -> None:
    """Let nothing more be written to standard output: Python would try once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def refuse(message: str) -> NoReturn:
    """End a command whose input is refused."""
    _end(f"error: {message}", REFUSED)


def fail(message: str) -> NoReturn:
    """End a command in work that was begun."""
    _end(message, FAILED)


def _end(message: str, status: int) -> NoReturn:
    print(f"morenas: {_shown(message)}", file=sys.stderr)
    sys.exit(status)


def _shown(message: str) -> str:
    """A message in which no name of somebody else's, such as a column's, commands the terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", message)
