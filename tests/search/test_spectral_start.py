"""A search that starts from closed-form scores of a warmed-up open supernet, and what selects by measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from grids import in_turn
from tiny_models import shallow
from tiny_search import BUDGET, TinyBatches, found, search, tiny_space
from tiny_training import Recorder
from torch import Tensor, nn

from morenas import search_architecture
from morenas.base.registry import registry
from morenas.models.heads import find_head
from morenas.monarch import Link, to_dense
from morenas.search import measure, start
from morenas.search.engine import SearchOutcome, SearchSettings
from morenas.selection import Evidence
from morenas.space import Choice, build_space
from morenas.supernet import Supernet

BOUNDARY = 8
SETTINGS = SearchSettings(steps=12, warmup=BOUNDARY, learning_rate=5e-3, checkpoint_every=1)
ALONE = replace(SETTINGS, warmup=12)


def assert_same(one: SearchOutcome, other: SearchOutcome) -> None:
    assert one.shapes == other.shapes and one.trajectory_steps == other.trajectory_steps
    assert torch.equal(one.logits, other.logits) and torch.equal(one.trajectory, other.trajectory)
    assert all(torch.equal(a, other.head[name]) for name, a in one.head.items())
    for name, pair in one.factors.items():
        assert all(torch.equal(a, b) for a, b in zip(pair, other.factors[name], strict=True))


@in_turn(
    kept=[BOUNDARY - 1, BOUNDARY, BOUNDARY + 1, 11],
    selection=["budgeted", "perturbation", "surrogate", "playoff", "race"],
)
def test_resumed_before_at_and_after_the_boundary_it_finds_the_same_bit_for_bit(
    kept: int, selection: str, tmp_path: Path
) -> None:
    settings, checkpoint = replace(SETTINGS, selection=selection), tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        search(shallow(), settings, checkpoint=checkpoint, observer=Recorder(stop_at=kept + 1))
    torch.manual_seed(3)
    recorder = Recorder()
    parts = search(shallow(), settings, checkpoint=checkpoint, observer=recorder)
    assert recorder.started == [("search", 12, kept)]
    assert_same(parts, found(settings))


@pytest.mark.parametrize("kept", [5, 12])
def test_a_search_that_is_all_warm_up_resumes_too_when_it_was_over_as_well(kept: int, tmp_path: Path) -> None:
    checkpoint = tmp_path / "state"
    if kept < 12:
        with pytest.raises(KeyboardInterrupt):
            search(shallow(), ALONE, checkpoint=checkpoint, observer=Recorder(stop_at=kept + 1))
    else:
        search(shallow(), ALONE, checkpoint=checkpoint)
    assert_same(search(shallow(), ALONE, checkpoint=checkpoint), found(ALONE))


@pytest.mark.parametrize(("stop", "more"), [("entropy", {"stop_entropy": 9.0}), ("curvature", {"stop_curvature": 1.0})])
def test_a_search_that_a_guard_stopped_selects_and_resumes_the_same(
    stop: str, more: dict[str, Any], tmp_path: Path
) -> None:
    level = replace(SETTINGS, start="level", steps=40, warmup=2, every=1)
    settings = replace(level, stop=stop, stop_every=1, **more)
    recorder = Recorder()
    before, after = tmp_path / "before", tmp_path / "after"
    # Writes its last checkpoint where it stopped.
    whole = search(shallow(), settings, observer=recorder, checkpoint=after)
    assert 2 < whole.steps < 40 and recorder.steps[-1] == whole.steps
    assert recorder.messages[:-1] == [f"The search stopped after {whole.steps} of 40 steps: {whole.stopped}."]
    assert recorder.logged[whole.steps]["search/stopped"] == 1.0
    assert not any("search/stopped" in recorder.logged[step] for step in range(1, whole.steps))
    assert torch.equal(whole.trajectory[-1], whole.probs) and whole.shapes
    with pytest.raises(KeyboardInterrupt):
        search(shallow(), settings, checkpoint=before, observer=Recorder(stop_at=2))
    for checkpoint in (before, after):
        parts = search(shallow(), settings, checkpoint=checkpoint)
        assert_same(parts, whole)
        assert (parts.steps, parts.stopped) == (whole.steps, whole.stopped)


class Two(nn.Module):
    """Two linear layers side by side, and the squared error of what they give."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.left(x), self.right(x)], dim=-1)


class Planted:
    """Batches whose targets are those of ``Two`` after a change of the weights by adapters of known shapes."""

    SHAPES: Mapping[str, Choice] = {"left": Choice(4, 1), "right": Choice(1, 1)}

    def __init__(self, offset: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.offset, self.truth = offset, Two()
        for name, (count, rank) in self.SHAPES.items():
            first = torch.randn(count, rank, 16 // count, generator=generator)
            second = torch.randn(count, 16 // count, rank, generator=generator)
            delta = to_dense(first, second, Link.CYCLIC, 16, 16)
            self.truth.get_submodule(name).weight.data += delta / delta.norm()

    @torch.no_grad()
    def __getitem__(self, number: int) -> Mapping[str, Tensor]:
        x = torch.randn(64, 16, generator=torch.Generator().manual_seed(self.offset + number))
        return {"x": x, "y": self.truth(x)}


def test_logits_after_the_warm_up_prefer_the_shapes_that_were_planted() -> None:
    def select(evidence: Evidence) -> Sequence[int]:
        """Ask each selection, from the same generator; all find the same."""
        start = evidence.generator.get_state()
        for name in ("budgeted", "surrogate", "perturbation", "playoff"):
            evidence.generator.set_state(start)
            picks = registry("selection").build(name)(evidence)
            shapes = {module: space.choices[pick] for module, pick in zip(Planted.SHAPES, picks, strict=True)}
            assert shapes == Planted.SHAPES, name
            asked.append(name)
        return picks

    asked: list[str] = []
    space = build_space({"left": (16, 16), "right": (16, 16)}, [1, 2, 4], [0, 1, 2])
    settings = SearchSettings(
        steps=200, warmup=200, learning_rate=2e-2, weight_decay=0.0, selection=select, measurements=10
    )

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return (model(batch["x"]) - batch["y"]).square().mean()

    outcome = search_architecture(Two(), Planted(0), Planted(10_000), space, 64, settings, loss=loss)
    assert outcome.shapes == Planted.SHAPES and len(asked) == 4
    for row, shape in zip(outcome.logits, Planted.SHAPES.values(), strict=True):
        rank_one = [index for index, choice in enumerate(space.choices) if choice.blk_r == 1]
        assert space.choices[max(rank_one, key=lambda index: float(row[index]))] == shape


def test_measuring_leaves_the_weights_alone_and_repeats() -> None:
    def inspect(supernet: Supernet, outcome: SearchOutcome, loss_of: Any) -> None:
        before = {name: weight.detach().clone() for name, weight in supernet.weights().items()}
        picks = [1] * len(outcome.logits)
        assert loss_of(picks) == loss_of(picks) != loss_of([0] * len(picks))
        assert all(torch.equal(weight, before[name]) for name, weight in supernet.weights().items())
        seen.append(True)

    seen: list[bool] = []
    search(shallow(), SETTINGS, inspect=inspect)
    assert seen == [True]


@in_turn(name=["surrogate", "perturbation", "playoff"], budget=[60, BUDGET, 10**9])
def test_nothing_that_is_measured_costs_more_than_the_budget_and_no_more_is_measured_than_was_asked(
    name: str, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Sequence[int]] = []
    true = measure.Measurement.__call__

    def noting(self: measure.Measurement, picks: Sequence[int]) -> float:
        measured.append(picks)
        return true(self, picks)

    monkeypatch.setattr(measure.Measurement, "__call__", noting)
    settings = replace(SETTINGS, selection=name, measurements=7, playoff=2, playoff_steps=1)
    outcome = search(shallow(), settings, budget=budget)
    costs = tiny_space(shallow()).costs()
    assert 1 <= len(measured) <= 7 + (name != "perturbation")
    assert max(sum(int(costs[group, pick]) for group, pick in enumerate(picks)) for picks in measured) <= budget
    assert outcome.params <= budget


class Noting(TinyBatches):
    """Remembers the numbers of the batches that were read."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.numbers: list[int] = []

    def __getitem__(self, number: int) -> Mapping[str, Tensor]:
        self.numbers.append(number)
        return super().__getitem__(number)


@pytest.mark.parametrize("micro", [1, 2])
def test_a_play_off_trains_each_on_the_same_batches_after_the_searchs_own_and_is_decided_on_select(micro: int) -> None:
    settings = replace(ALONE, selection="playoff", playoff=3, playoff_steps=2, gradient_accumulation=micro)
    model = shallow()
    train, val, select = Noting(0), Noting(1000), Noting(2000)
    search_architecture(model, train, val, tiny_space(model), BUDGET, settings, find_head(model), select_batches=select)
    own = 12 * micro
    assert train.numbers == [*range(own), *3 * list(range(own, own + 2 * micro))]
    assert select.numbers == 3 * list(range(measure.DECISIVE_BATCHES))
    assert max(val.numbers) < measure.MEASURED_BATCHES


def test_the_winner_of_a_play_off_brings_the_weights_that_it_was_trained_to() -> None:
    plain = found(ALONE)
    trained = search(shallow(), replace(ALONE, selection="playoff", playoff=1, playoff_steps=3))
    for name in plain.head:
        assert not torch.equal(trained.head[name], plain.head[name])
    both = [name for name, shape in plain.shapes.items() if trained.shapes.get(name) == shape]
    assert both and not any(torch.equal(plain.factors[name][1], trained.factors[name][1]) for name in both)


@pytest.mark.parametrize(("steps", "architectures", "batches"), [(8, 1, 1), (26, 5, 1), (65, 12, 3), (400, 60, 3)])
def test_scores_and_measurements_cost_little_of_a_short_search(steps: int, architectures: int, batches: int) -> None:
    assert measure.usual_measurements(steps) == architectures
    assert start.spectrum_batches(steps) == batches
