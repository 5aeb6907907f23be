"""A command ends in a status and at most one line, also where nothing more can be written."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from morenas.base.errors import WriteError
from morenas.run.ending import exit_status, unwritten

PRINTS = """
import sys
from morenas.run.ending import exit_status
with exit_status():
    print(*range(int(sys.argv[1])))
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("numbers", ["3", "9000"])  # in Python's buffer, and beyond it
def test_output_led_into_a_file_on_a_full_disk_fails_in_one_line(numbers: str, unbuffered: str) -> None:
    words, environment = [sys.executable, "-c", PRINTS, numbers], {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert done.returncode == 1
    said = r"standard output( or a temporary file)?: cannot be written \(No space left on device\)"
    assert re.fullmatch(
        rf"morenas: failed: {said}; once it can be, run the same command again\.\n",
        done.stderr,
    )


def test_what_a_library_cannot_write_is_named_as_far_as_it_is_known() -> None:
    full = os.strerror(errno.ENOSPC)
    for error, named in (
        (OSError(errno.ENOSPC, full, "/cache/a.arrow"), "/cache/a.arrow"),
        (OSError(errno.ENOSPC, full), "standard output or a temporary file"),
        (WriteError(errno.EIO, "broken", "/run/a"), "/run/a"),
    ):
        assert str(unwritten(error)).startswith(f"{named}: cannot be written (")


def test_an_error_of_another_kind_keeps_its_traceback() -> None:
    error = FileNotFoundError(errno.ENOENT, "none", "/the/model")
    assert unwritten(error) is None and unwritten(ValueError()) is None
    with pytest.raises(FileNotFoundError), exit_status():
        raise error
