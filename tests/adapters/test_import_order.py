"""``import morenas`` makes the method known to PEFT, in whichever order, and stays light."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from forked import Forked
from tiny_adapters import adapted

ROOT = Path(__file__).parents[2]

ORDERS = {
    "morenas first": "import morenas; from peft import PeftConfig",
    "peft first": "from peft import PeftConfig; import morenas",
    "looked for in between": "import morenas; from importlib.util import find_spec; find_spec('peft'); "
    "from peft import PeftConfig",  # as transformers does on loading a model
}


def said(forked: Forked, code: str, folder: Path) -> str:
    """What code prints in a process of its own."""
    (folder / "program.py").write_text(code)
    done = forked(folder / "program.py", folder, path=[ROOT])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("order", ORDERS)
def test_a_saved_adapter_is_known_in_a_new_process_and_the_hook_leaves_no_trace(
    forked: Forked, order: str, tmp_path: Path
) -> None:
    adapted().save_pretrained(tmp_path)
    code = f"{ORDERS[order]}; print(type(PeftConfig.from_pretrained('.')).__name__)\n"
    code += "import sys, peft; print(type(peft.__loader__).__name__, type(peft.__spec__.loader).__name__); "
    code += "print([finder for finder in sys.meta_path if type(finder).__module__.startswith('morenas')])"
    assert said(forked, code, tmp_path).splitlines() == ["MoReConfig", "SourceFileLoader SourceFileLoader", "[]"]


def test_the_import_brings_nothing_heavy(tmp_path: Path) -> None:
    heavy = ["torch", "peft", "transformers", "hydra", "wandb"]
    code = f"import sys, morenas; print([module for module in {heavy} if module in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
