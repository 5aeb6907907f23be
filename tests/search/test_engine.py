"""The search as one call, in somebody else's program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from grids import in_turn
from peft import get_peft_model
from tiny_adapters import logits
from tiny_models import FAMILIES, shallow, tiny_batch
from tiny_search import BUDGET, SETTINGS, STARTS, TinyBatches, found, search, starts, tiny_space
from tiny_training import Recorder
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, T5Config

from morenas import numbered_batches, search_architecture
from morenas.adapters import MoReConfig, set_factors
from morenas.base.errors import InputError, RunError
from morenas.models import target_linears
from morenas.models.heads import find_head
from morenas.monarch import num_parameters
from morenas.search import loops
from morenas.search.engine import SearchOutcome, SearchSettings
from morenas.search.measure import MEASURED_BATCHES
from morenas.space import Architecture, Budget, Choice, build_space
from morenas.supernet import Supernet


@starts
def test_it_gives_the_model_back_as_it_came(settings: SearchSettings) -> None:
    model = shallow().train()
    names, before = [name for name, _ in model.named_modules()], {k: v.clone() for k, v in model.state_dict().items()}
    next(model.parameters()).requires_grad_(False)
    required = [parameter.requires_grad for parameter in model.parameters()]
    search(model, settings)
    assert [name for name, _ in model.named_modules()] == names
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == required
    assert model.training


@in_turn(family=FAMILIES, start=STARTS)
def test_every_family_is_searched_and_adapted(family: str, start: str) -> None:
    model, settings = shallow(family), STARTS[start]
    outcome = search(model, settings, budget=400)
    assert outcome.shapes and outcome.logits.isfinite().all()
    # A spectral start leaves what scores best in each group at 0, and may be too sure of it to move it.
    moved = outcome.logits != 0
    assert moved.all() if settings.start == "level" else moved.any(dim=1).all()
    architecture = {name: {"nblocks": n, "blk_r": r} for name, (n, r) in outcome.shapes.items()}
    adapter = get_peft_model(model, MoReConfig(architecture=architecture))
    expected = logits(adapter)
    set_factors(adapter, outcome.factors)
    assert not torch.equal(logits(adapter), expected)
    assert sum(p.numel() for name, p in adapter.named_parameters() if "morenas_" in name) == outcome.params


@in_turn(relaxation=["softmax", "gumbel", "dirichlet"], sharing=["full", "per_nblocks"])
def test_the_search_moves_every_logit_that_is_allowed_and_no_other(relaxation: str, sharing: str) -> None:
    model = shallow()
    linears = target_linears(model, "all-linear", find_head(model))
    space = build_space(linears, [1, 3, 4], [0, 1, 2], pad=False)  # 3 divides none of 16 and 24 -> 16
    outcome = search(model, replace(SETTINGS, relaxation=relaxation, sharing=sharing), space=space)
    assert torch.equal(outcome.logits != 0, space.admissible())
    assert all(nblocks != 3 for nblocks, _ in outcome.shapes.values())


@in_turn(relaxation=["softmax", "gumbel", "dirichlet", "softmax"], budget=[200, 200, 200, 10**9])
def test_the_expected_cost_meets_a_budget_that_binds_at_every_step(relaxation: str, budget: int) -> None:
    recorder = Recorder()
    search(shallow(), replace(SETTINGS, relaxation=relaxation), budget=budget, observer=recorder)
    spent = [metrics["search/expected_params"] for metrics in recorder.logged.values()]
    uniform = float(tiny_space(shallow()).costs().double().mean(dim=1).sum())
    assert len(spent) == SETTINGS.steps
    if budget < uniform:
        assert spent == pytest.approx([budget] * SETTINGS.steps, rel=1e-4)
    else:
        assert spent[: SETTINGS.warmup] == pytest.approx([uniform] * SETTINGS.warmup)


class Watching(Recorder):
    """Asks for the probabilities of a search."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, Mapping[str, Mapping[str, float]]]] = []

    def mixture(self, step: int, probs: Mapping[str, Mapping[str, float]]) -> None:
        self.seen.append((step, probs))


def arch_steps_alone(outcome: SearchOutcome) -> int:
    """Architecture steps that were taken after the last weight step."""
    said = outcome.architecture.search
    taken: int = said["arch_steps_taken"] if said["warmup"] == said["steps"] else 0
    return taken


@starts
def test_an_observer_that_asks_sees_the_probabilities_of_every_step_by_name(settings: SearchSettings) -> None:
    watching, space = Watching(), tiny_space(shallow())
    outcome = search(shallow(), settings, observer=watching)
    steps = [step for step, _ in watching.seen]
    last_step = settings.steps + arch_steps_alone(outcome)
    assert steps == sorted([*range(1, last_step + 1), settings.warmup])  # once more when the logits are set
    last = watching.seen[-1][1]
    assert list(last) == list(space.groups)
    assert all(list(row) == [str(choice) for choice in space.choices] for row in last.values())
    assert torch.tensor([list(row.values()) for row in last.values()]).equal(outcome.probs)
    if settings.warmup < settings.steps:
        numbers = {step: [list(row.values()) for row in probs.values()] for step, probs in watching.seen[:-1]}
        for step in range(1, settings.warmup):
            torch.testing.assert_close(torch.tensor(numbers[step]), outcome.trajectory[step - 1])
    assert torch.equal(found(settings).logits, outcome.logits)


def test_nothing_of_the_architecture_moves_in_the_warm_up() -> None:
    recorder = Recorder()
    outcome = search(shallow(), observer=recorder)
    warm = outcome.trajectory[: SETTINGS.warmup]
    assert torch.equal(warm, warm[:1].expand_as(warm))
    assert not torch.equal(outcome.trajectory[SETTINGS.warmup], warm[0])
    upper = [step - 1 for step, metrics in recorder.logged.items() if "search/upper_loss" in metrics]
    assert upper == list(range(SETTINGS.warmup, SETTINGS.steps, SETTINGS.every))


def test_a_draw_that_gives_no_module_an_adapter_is_a_step_like_any_other() -> None:
    """With one choice for all, no head, and "none" drawn, the loss reaches nothing that is trained."""
    model = shallow()
    space = build_space(target_linears(model, "all-linear", find_head(model)), [1], [0, 1], "all")
    settings = replace(SETTINGS, relaxation="gumbel", steps=20)
    outcome = search(model, settings, space=space, budget=10**6, head=())
    assert (outcome.logits != 0).all()


@starts
def test_a_loss_that_depends_on_no_searched_module_is_refused_in_words(settings: SearchSettings) -> None:
    free = torch.zeros((), requires_grad=True)
    with pytest.raises(RunError, match="moved no architecture logit"):
        search(shallow(), settings, loss=lambda model, batch: free * 0)
    with pytest.raises(RunError, match="moved no architecture logit"):
        search(shallow(), settings, loss=lambda model, batch: torch.zeros(()))


@pytest.mark.parametrize("read_every", [1, 5])
def test_a_message_names_the_step_whose_loss_was_not_finite(read_every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "read_every", lambda *given: read_every)
    batches = TinyBatches(0)
    bad = batches[6]["labels"]

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        value: Tensor = model(**batch).loss
        return value * float("inf") if torch.equal(batch["labels"], bad) else value

    settings = replace(SETTINGS, warmup=10)
    assert not any(torch.equal(batches[step]["labels"], bad) for step in range(6))
    with pytest.raises(RunError, match=r"lower loss is (inf|nan) at weight step 6 .*lower batch 6"):
        search(shallow(), settings, loss=loss)


@pytest.mark.parametrize("checkpoint_every", [4, 5])
def test_reading_losses_as_rarely_as_from_an_accelerator_changes_no_bit_of_a_killed_and_resumed_search(
    checkpoint_every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, steps=14, warmup=6, every=3, checkpoint_every=checkpoint_every)
    expected = search(shallow(), settings)
    rare = loops.read_every(torch.device("cuda"), checkpoint_every)
    assert rare > 1 and loops.read_every(torch.device("cpu"), checkpoint_every) == 1
    monkeypatch.setattr(loops, "read_every", lambda *given: rare)

    class Killed(Exception):
        pass

    class Killer(Recorder):
        def step(self, phase: str, step: int, metrics: Mapping[str, float] | None = None) -> None:
            super().step(phase, step, metrics)
            if step == 11:
                raise Killed

    checkpoint = tmp_path / "search.safetensors"
    with pytest.raises(Killed):
        search(shallow(), settings, checkpoint=checkpoint, observer=Killer())
    found = search(shallow(), settings, checkpoint=checkpoint)
    assert found.shapes == expected.shapes and found.trajectory_steps == expected.trajectory_steps
    assert torch.equal(found.logits, expected.logits) and torch.equal(found.trajectory, expected.trajectory)


@pytest.mark.gpu
def test_a_search_on_a_gpu_leaves_only_the_model_there() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model: nn.Module = shallow()
    model.cuda()
    outcome = search(model, replace(SETTINGS, bf16=True))
    assert outcome.shapes and {tensor.device.type for tensor in (outcome.logits, outcome.probs)} == {"cpu"}
    assert all(parameter.device.type == "cuda" for parameter in model.parameters())


@starts
def test_a_model_that_reads_the_weights_of_its_linear_layers_is_searched(settings: SearchSettings) -> None:
    sizes = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
    config = T5Config.from_dict({**sizes, "eos_token_id": 3, "decoder_start_token_id": 0})
    model = AutoModelForSequenceClassification.from_config(config)

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        ids = batch["input_ids"].masked_fill(batch["input_ids"].eq(3), 5)
        ids[:, -1] = 3  # T5 classifies by the one end-of-text token of each row
        result: Tensor = model(input_ids=ids, labels=batch["labels"]).loss
        return result

    assert search(model, settings, loss=loss).shapes


def test_an_interrupted_search_gives_the_model_back_too() -> None:
    model = shallow()
    expected = logits(model)

    def broken(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(model, loss=broken)
    assert torch.equal(logits(model), expected)


@in_turn(budget=[30, 100, 300, 1000, 10**9, 30], start=STARTS)
def test_what_it_finds_never_exceeds_the_budget(budget: int, start: str) -> None:
    outcome = search(shallow(), STARTS[start], budget=budget)
    space = tiny_space(shallow())
    costs = (num_parameters(*space.modules[name], *choice) for name, choice in outcome.shapes.items())
    assert outcome.params == sum(costs) <= budget
    assert outcome.factors.keys() == outcome.shapes.keys()
    for name, (nblocks, blk_r) in outcome.shapes.items():
        assert outcome.factors[name][0].shape[:2] == (nblocks, blk_r)


@starts
def test_the_head_is_trained_beside_and_handed_over(settings: SearchSettings) -> None:
    model: Any = shallow()
    outcome = found(settings)
    assert outcome.head.keys() == {"classifier.weight", "classifier.bias"}
    assert not torch.equal(outcome.head["classifier.weight"], model.classifier.weight)


@starts
def test_the_trajectory_holds_distributions_from_first_to_last_step(settings: SearchSettings) -> None:
    outcome = found(settings)
    # the scores come after the last weight step, then the architecture steps
    after = 1 + arch_steps_alone(outcome) if settings.warmup == settings.steps else 0
    assert outcome.trajectory_steps == list(range(settings.steps + after))
    torch.testing.assert_close(outcome.trajectory.sum(-1), torch.ones(outcome.trajectory.shape[:2]))
    assert torch.equal(outcome.trajectory[-1], outcome.probs)
    moved = (outcome.trajectory[-1] - outcome.trajectory[0]).abs().max()
    assert moved > 1e-3


@pytest.mark.parametrize("relaxation", ["softmax", "gumbel", "dirichlet"])
def test_stopped_and_resumed_it_finds_the_same_bit_for_bit(relaxation: str, tmp_path: Path) -> None:
    settings = replace(SETTINGS, relaxation=relaxation)
    whole = search(shallow(), settings, checkpoint=tmp_path / "whole")
    torch.manual_seed(5)

    class StopAt:
        def __init__(self, step: int) -> None:
            self.at = step

        def start(self, phase: str, total_steps: int, done: int = 0) -> None: ...

        def step(self, phase: str, step: int, metrics: Mapping[str, float] | None = None) -> None:
            if step == self.at:
                raise KeyboardInterrupt

        def message(self, text: str) -> None: ...

        def finish(self, phase: str) -> None: ...

    for stop in (2, 5, 11):
        with pytest.raises(KeyboardInterrupt):
            search(shallow(), settings, checkpoint=tmp_path / "parts", observer=StopAt(stop))
    parts = search(shallow(), settings, checkpoint=tmp_path / "parts")
    assert parts.shapes == whole.shapes
    assert torch.equal(parts.logits, whole.logits) and torch.equal(parts.trajectory, whole.trajectory)
    for name in whole.factors:
        assert all(torch.equal(a, b) for a, b in zip(parts.factors[name], whole.factors[name], strict=True))


def test_a_checkpoint_of_another_search_is_refused(tmp_path: Path) -> None:
    search(shallow(), checkpoint=tmp_path / "state")
    other = shallow("gpt2")
    with pytest.raises(InputError, match="belongs to another search"):
        search(other, checkpoint=tmp_path / "state", space=tiny_space(other), head=find_head(other))


@starts
def test_a_search_that_moves_no_logit_says_so(settings: SearchSettings) -> None:
    def constant(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return 0.0 * model(**batch).loss

    with pytest.raises(RunError, match="moved no architecture logit"):
        search(shallow(), settings, loss=constant)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 0}, "steps=0"),
        ({"warmup": 12}, "warmup=12"),
        ({"every": 0}, "every=0"),
        ({"temperature_end": 0.0}, "temperature_end=0.0"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"start": "steep"}, "spectral, level"),
        ({"start": "spectral"}, "sharing=per_nblocks"),
        ({"start": "spectral", "sharing": "per_nblocks", "warmup": 0}, "warmup=0"),
        ({"start": "spectral", "sharing": "per_nblocks", "warmup": 13}, "warmup=13"),
        ({"measurements": 0}, r"search.measurements=0"),
        ({"playoff": 0}, r"search.playoff=0"),
        ({"playoff_steps": 0}, r"search.playoff_steps=0"),
        ({"stop": "bored"}, "none, entropy, curvature"),
        ({"stop_entropy": -0.1}, r"search.stop_entropy=-0.1"),
        ({"stop_curvature": 0.9}, r"search.stop_curvature=0.9"),
        ({"stop_every": 0}, r"search.stop_every=0"),
        ({"relaxation": "hard"}, "softmax, gumbel, dirichlet"),
        ({"sharing": "half"}, "full, per_nblocks"),
        ({"selection": "best"}, "race, surrogate, perturbation, playoff, budgeted, argmax"),
        ({"hypergradient": "exact"}, "first_order"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        replace(SETTINGS, **change)


@starts
def test_one_choice_for_all_modules_of_a_group(settings: SearchSettings) -> None:
    model = shallow()
    outcome = search(model, settings, space=tiny_space(model, "all"), budget=10**6)
    assert len(set(outcome.shapes.values())) == 1 and outcome.logits.shape[0] == 1


def test_the_outcome_says_what_was_found_for_which_model_and_how(tmp_path: Path) -> None:
    model = shallow()
    model.name_or_path = "tiny-bert"  # as from_pretrained sets it
    budget = Budget.resolve(tiny_space(model), lora_rank=8, fraction=0.1)
    outcome = search(model, STARTS["spectral"], budget=budget)
    found = outcome.architecture
    assert found.base_model == "tiny-bert" and found.link == "cyclic"
    assert found.shapes() == outcome.shapes and found.num_parameters() == outcome.params <= budget.limit
    head = sum(p.numel() for name in find_head(model) for p in model.get_submodule(name).parameters())
    assert found.params_fraction == outcome.params / (model.num_parameters() - head)
    assert found.budget == {"params": budget.params, "request": {"lora_rank": 8, "fraction": 0.1}}
    assert found.search["steps"] == found.search["steps_taken"] == 12 and found.search["start"] == "spectral"
    found.check(target_linears(model))
    found.to_json(tmp_path / "architecture.json")
    assert Architecture.from_json(tmp_path / "architecture.json") == found


def test_a_model_without_a_name_is_called_by_its_class() -> None:
    assert search(shallow()).architecture.base_model == "BertForSequenceClassification"


def test_a_fine_tune_that_inherits_starts_at_the_loss_that_the_search_ended_with() -> None:
    model = shallow()
    space, heads, measured = tiny_space(model), list(find_head(model)), []

    def inspect(supernet: Supernet, outcome: SearchOutcome, measure: Callable[[Sequence[int]], float]) -> None:
        chosen = [outcome.shapes.get(names[0], Choice(1, 0)) for names in space.groups.values()]
        measured.append(measure([space.choices.index(choice) for choice in chosen]))

    outcome = search(model, STARTS["spectral alone"], inspect=inspect)
    batches = [TinyBatches(1000)[number] for number in range(MEASURED_BATCHES)]

    def loss(model: nn.Module) -> float:
        with torch.no_grad():
            return float(torch.stack([model.eval()(**batch).loss for batch in batches]).mean())

    plain = loss(model)
    model.load_state_dict(outcome.head, strict=False)
    adapted = get_peft_model(model, MoReConfig.from_architecture(outcome, modules_to_save=heads))
    set_factors(adapted, outcome.factors)
    assert loss(adapted) == pytest.approx(measured[0], abs=1e-6)
    assert abs(plain - measured[0]) > 1e-3


@pytest.mark.parametrize("kind", ["list", "loader"])
def test_batches_that_end_or_have_no_number_are_refused_before_anything_is_done(kind: str) -> None:
    batches: Any = [tiny_batch()] if kind == "list" else DataLoader([tiny_batch()], batch_size=None)  # type: ignore[arg-type]
    model = shallow()
    said = r"val batches: .* a (list|DataLoader) has an end or no numbers; wrap the data: morenas.numbered_batches"
    with pytest.raises(InputError, match=said):
        search_architecture(model, TinyBatches(0), batches, tiny_space(model), BUDGET, SETTINGS)
    assert not any("supernet" in type(module).__module__ for module in model.modules())


def test_a_search_on_numbered_batches_goes_on_from_its_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    rows = [{name: value[0] for name, value in tiny_batch(size=1, seed=seed).items()} for seed in range(20)]

    def go(stop_at: int | None, checkpoint: Path | None = None) -> SearchOutcome:
        model = shallow()
        train, val = (numbered_batches(part, 4, seed=1) for part in (rows[:12], rows[12:]))
        settings = replace(SETTINGS, steps=12)
        return search_architecture(
            model, train, val, tiny_space(model), BUDGET, settings, checkpoint=checkpoint, observer=Recorder(stop_at)
        )

    whole = go(None)
    with pytest.raises(KeyboardInterrupt):
        go(7, tmp_path / "state")
    parts = go(None, tmp_path / "state")
    assert torch.equal(whole.logits, parts.logits) and whole.architecture == parts.architecture
