"""Programs in processes of their own, forked from one that has imported what peft and morenas import, but not these.

    with Forked() as forked:
        done = forked(program, folder, "--epochs", "1")

is ``python program --epochs 1`` in ``folder``, without the seconds that those libraries take to import.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

WHAT_PEFT_AND_MORENAS_IMPORT = ("transformers.modeling_utils", "bitsandbytes", "datasets", "sklearn.metrics")


class Forked:
    """The process that the programs are forked from; it ends with the block.

    Args:
        environment: Further variables that it starts with.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self.environment = environment or {}

    def __enter__(self) -> Forked:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **self.environment}
        words = [sys.executable, "-P", __file__]  # without this folder on the path
        self._server = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()

    def __call__(
        self, program: Path, folder: Path, *words: str, path: Sequence[Path] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end.

        Args:
            program: A Python file.
            folder: Where it runs.
            words: Its command line.
            path: Folders that it can import from, besides its own and those of the environment.
        """
        assert self._server.stdin and self._server.stdout
        with tempfile.TemporaryDirectory() as place:
            said = {"out": f"{place}/out", "err": f"{place}/err"}
            job = {"words": [str(program), *words], "folder": str(folder), "path": [*map(str, path)], **said}
            print(json.dumps(job), file=self._server.stdin, flush=True)
            status = int(self._server.stdout.readline())
            out, err = (Path(file).read_text() for file in said.values())
        return subprocess.CompletedProcess(job["words"], status, out, err)


def serve() -> None:
    """Run what standard input says, one program a line; its exit status goes to standard output."""
    gc.disable()
    for module in WHAT_PEFT_AND_MORENAS_IMPORT:
        if importlib.util.find_spec(module.partition(".")[0]):
            importlib.import_module(module)
    gc.freeze()
    gc.enable()
    assert not {"peft", "morenas"} & sys.modules.keys()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def run(job: dict[str, Any]) -> NoReturn:
    """Become the program."""
    for descriptor, name in enumerate((os.devnull, job["out"], job["err"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), descriptor)
    os.chdir(job["folder"])
    sys.argv = job["words"]
    sys.path[:0] = [str(Path(sys.argv[0]).parent), *job["path"]]
    status = 1
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        print(stop.code if isinstance(stop.code, str) else "", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    serve()
