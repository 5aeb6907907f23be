"""The example programs run as a stranger runs them, from a directory of his own, and tell the truth."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
from forked import Forked
from tiny_models import save_tiny_causal
from transformers import AutoModelForCausalLM

import morenas
from morenas.base.files import read_json

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(forked: Forked, program: str, folder: Path, *words: str) -> str:
    """What a program prints, in a process of its own with one thread and no network."""
    done = forked(EXAMPLES / program, folder, *words, path=[EXAMPLES.parent])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_search_inside_a_trainer_program_leaves_a_lora_that_computes_the_same(forked: Forked, tmp_path: Path) -> None:
    said = run(forked, "search_then_trainer.py", tmp_path, "--steps", "30")
    architecture = morenas.Architecture.from_json(tmp_path / "out" / "architecture.json")
    found = re.search(r"found: adapters on (\d+) of 24 layers, ([\d,]+) parameters", said)
    assert found and int(found[1]) == len(architecture.modules)
    assert int(found[2].replace(",", "")) == architecture.num_parameters() <= architecture.budget["params"]
    accuracy = re.search(r"accuracy on 200 held-out examples: ([\d.]+)", said)
    assert accuracy and float(accuracy[1]) > 0.8
    difference = re.search(r"largest difference between the logits of MoRe and LoRA: (\S+)", said)
    assert difference and float(difference[1]) < 1e-4
    assert read_json(tmp_path / "out" / "lora" / "adapter_config.json", "adapter")["peft_type"] == "LORA"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_an_accelerate_loop_trains_beside_bfloat16_weights_and_merges(forked: Forked, tmp_path: Path) -> None:
    said = run(forked, "accelerate_loop.py", tmp_path, "--epochs", "2")
    losses = [float(loss) for loss in re.findall(r"epoch \d: loss ([\d.]+)", said)]
    assert len(losses) == 2 and losses[-1] < losses[0]
    both = re.search(r"loss with the adapter ([\d.]+), merged into the model ([\d.]+)", said)
    assert both and abs(float(both[1]) - float(both[2])) < 0.02
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "merged")
    assert not [name for name, _ in merged.named_parameters() if "morenas" in name]
    assert all(parameter.isfinite().all() for parameter in merged.parameters())


def test_the_loop_takes_a_model_of_ones_own_and_an_architecture_from_a_file(forked: Forked, tmp_path: Path) -> None:
    base = save_tiny_causal(tmp_path / "mine", "llama")
    linears = morenas.target_linears(AutoModelForCausalLM.from_pretrained(base))
    name = next(iter(linears))
    morenas.Architecture.from_shapes({name: (2, 3)}, linears, str(base), 10**5).to_json(tmp_path / "architecture.json")
    own = ("--model", "mine", "--architecture", "architecture.json", "--epochs", "1", "--out", "own")
    assert "epoch 1: loss" in run(forked, "accelerate_loop.py", tmp_path, *own)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "own" / "merged").state_dict()
    plain = AutoModelForCausalLM.from_pretrained(base).state_dict()
    changed = [key for key, value in plain.items() if not torch.allclose(value, merged[key], atol=1e-6)]
    assert changed == [f"{name}.weight"]


@pytest.mark.parametrize("program", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_needs_nothing_but_public_names(program: Path) -> None:
    tree = ast.parse(program.read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_package(node.value)}
    imported = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    roots = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert used and used <= set(morenas.__all__)
    assert not [name for name in (*imported, *roots) if name.split(".")[0] in ("hydra", "omegaconf")]
    assert not [name for name in (*imported, *roots) if name.startswith("morenas.")]


def is_package(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "morenas"
