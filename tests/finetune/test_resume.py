"""A fine-tune that was killed and resumed ends as one that never stopped, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import SETTINGS, Recorder, tiny_adapted, tiny_architecture, tiny_data
from torch import Tensor

from morenas.base.errors import InputError
from morenas.finetune.checkpoints import last_checkpoint
from morenas.finetune.loop import FinetuneResult, finetune
from morenas.finetune.methods import AdaLora, Full, Head, Lora, Method, More
from morenas.finetune.state import trained_state

METHODS: list[Method] = [
    Lora(rank=2, dropout=0.1),
    More().with_architecture(tiny_architecture()),
    AdaLora(rank=2, every=2),
    Full(),
    Head(),
]


def run(
    method: Method, directory: Path, recorder: Recorder | None = None, **changes: object
) -> tuple[FinetuneResult, dict[str, Tensor]]:
    model = tiny_adapted(method)
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    result = finetune(model, tiny_data(), settings, directory, recorder or Recorder())
    return result, trained_state(model)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    ("method", "accumulation"),
    [(METHODS[0], 2), *((method, 1) for method in METHODS[1:])],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_interrupted_anywhere_it_ends_the_same(method: Method, accumulation: int, tmp_path: Path) -> None:
    whole = Recorder()
    expected = run(method, tmp_path / "whole", whole, gradient_accumulation=accumulation)
    torch.manual_seed(99)  # a resumed process has drawn other numbers
    halves = [Recorder(stop_at=2), Recorder(stop_at=8), Recorder()]
    for recorder in halves[:2]:
        with pytest.raises(KeyboardInterrupt):
            run(method, tmp_path / "parts", recorder, gradient_accumulation=accumulation)
    result, state = run(method, tmp_path / "parts", halves[2], gradient_accumulation=accumulation)
    assert result == expected[0]
    assert same(state, expected[1])
    assert [recorder.started[0][2] for recorder in halves] == [0, 0, 6]
    assert halves[0].logged | halves[1].logged | halves[2].logged == whole.logged


def test_a_kill_between_evaluations_costs_the_steps_since_the_last_checkpoint(tmp_path: Path) -> None:
    whole, halves = Recorder(), [Recorder(stop_at=5), Recorder(stop_at=10), Recorder()]
    expected = run(METHODS[0], tmp_path / "whole", whole, evals=2, checkpoint_every=2)
    for recorder in halves[:2]:
        with pytest.raises(KeyboardInterrupt):
            run(METHODS[0], tmp_path / "parts", recorder, evals=2, checkpoint_every=2)
    result, state = run(METHODS[0], tmp_path / "parts", halves[2], evals=2, checkpoint_every=2)
    assert result == expected[0]
    assert same(state, expected[1])
    assert [recorder.started[0][2] for recorder in halves] == [0, 4, 8]
    assert halves[0].logged | halves[1].logged | halves[2].logged == whole.logged


def test_called_again_after_its_end_it_gives_the_same_result(tmp_path: Path) -> None:
    first, again = Recorder(), Recorder()
    one, two = run(METHODS[0], tmp_path, first), run(METHODS[0], tmp_path, again)
    assert one[0] == two[0] and same(one[1], two[1])
    assert again.steps == []


def test_an_interrupted_save_costs_one_checkpoint_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(METHODS[0], tmp_path / "whole")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("morenas.finetune.checkpoints.write_json", killed)
        run(METHODS[0], tmp_path / "cut")
    assert (tmp_path / "cut" / "checkpoint-3" / "trained.safetensors").exists()
    result, state = run(METHODS[0], tmp_path / "cut")
    assert result == expected[0] and same(state, expected[1])


def interrupted(directory: Path) -> Path:
    with pytest.raises(KeyboardInterrupt):
        run(METHODS[0], directory, Recorder(stop_at=8))
    folder = last_checkpoint(directory)
    assert folder == directory / "checkpoint-6"
    return folder


@pytest.mark.parametrize(
    "name", ["trained.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", "progress.json"]
)
def test_a_checkpoint_cut_short_is_refused_by_file(name: str, tmp_path: Path) -> None:
    path = interrupted(tmp_path) / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"checkpoint-6/{name}"):
        run(METHODS[0], tmp_path)


def test_a_damaged_best_checkpoint_is_refused_before_training_goes_on(tmp_path: Path) -> None:
    interrupted(tmp_path)
    path = tmp_path / "checkpoint-3" / "trained.safetensors"
    if not path.exists():
        pytest.skip("the last checkpoint is the best one")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="checkpoint-3"):
        run(METHODS[0], tmp_path)


def test_other_settings_do_not_go_on_from_it(tmp_path: Path) -> None:
    interrupted(tmp_path)
    with pytest.raises(InputError, match=r"settings learning_rate=0.005, not 0.1"):
        run(METHODS[0], tmp_path, learning_rate=0.1)


def test_another_method_does_not_go_on_from_it(tmp_path: Path) -> None:
    interrupted(tmp_path)
    with pytest.raises(InputError, match="another model or method"):
        run(Lora(rank=3), tmp_path)


def test_other_threads_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(tmp_path)
    recorder = Recorder()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 7)
        run(METHODS[0], tmp_path, recorder)
    assert "1 threads and goes on with 7" in recorder.messages[0]


def test_checkpoints_hold_nothing_that_must_be_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(tmp_path)
    loads: list[object] = []
    load = torch.load

    def watched(*args: object, **kwargs: object) -> object:
        loads.append(kwargs.get("weights_only"))
        return load(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(torch, "load", watched)
    run(METHODS[0], tmp_path)
    assert loads and set(loads) == {True}
    assert not list(tmp_path.rglob("training_args.bin"))


def test_frozen_weights_are_not_in_a_checkpoint(tmp_path: Path) -> None:
    folder = interrupted(tmp_path)
    trainable = sum(p.numel() for p in tiny_adapted(METHODS[0]).parameters() if p.requires_grad)
    assert (folder / "trained.safetensors").stat().st_size < 4 * trainable + 8192
