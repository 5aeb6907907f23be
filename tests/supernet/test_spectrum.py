"""What candidates keep of a change, against matrices written out in float64, and samples against autograd."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from monarch_reference import dense
from tiny_models import tiny_batch, tiny_classifier
from torch import Tensor, nn

from morenas.models import target_linears
from morenas.models.heads import find_head
from morenas.monarch import Link, num_parameters, to_dense
from morenas.space import Choice, build_space
from morenas.supernet import Supernet
from morenas.supernet import spectrum as module
from morenas.supernet.prepare import evaluation_mode
from morenas.supernet.spectrum import Sample, kept, projections, sample_inputs, sample_layers, spectrum

CHOICES = [Choice(1, 0), *(Choice(n, r) for n in (1, 2, 4, 8) for r in (1, 2, 4))]
AWKWARD = [Choice(1, 0), *(Choice(n, r) for n in (1, 3, 5) for r in (1, 3))]
SHAPES = [(16, 24, CHOICES), (32, 8, CHOICES), (13, 17, AWKWARD), (7, 5, CHOICES)]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def remainder(change: Tensor, choice: Choice) -> Tensor:
    """What the best matrix of a class leaves: every sub-matrix less as many singular triples as slots link it."""
    count, rank = choice
    left, width = change.clone(), -(-change.shape[1] // count)
    for k, l in product(range(count), range(count)):  # noqa: E741
        piece = change[l::count, k * width : (k + 1) * width]
        slots = sum((k + j) % count == l for j in range(rank))
        if piece.numel() and slots:
            u, s, vt = torch.linalg.svd(piece, full_matrices=False)
            left[l::count, k * width : (k + 1) * width] -= (u[:, :slots] * s[:slots]) @ vt[:slots]
    return left


def scores(change: Tensor, choices: list[Choice], sample: Sample | None = None) -> Tensor:
    return kept(change, projections(change, choices), choices, sample)


@pytest.mark.parametrize(("n", "m", "choices"), SHAPES)
def test_energy_is_that_of_the_change_less_that_of_what_the_best_of_the_class_leaves(
    n: int, m: int, choices: list[Choice]
) -> None:
    change = normal(m, n)
    whole = change.square().sum()
    expected = torch.stack([whole - remainder(change, choice).square().sum() for choice in choices])
    torch.testing.assert_close(scores(change, choices), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(("n", "m", "choices"), SHAPES)
@pytest.mark.parametrize("tokens", [2, 40])  # fewer than features: summed row by row
def test_curvature_is_the_trace_with_the_second_moments_of_inputs_and_gradients(
    n: int, m: int, choices: list[Choice], tokens: int
) -> None:
    change, sample = normal(m, n), Sample(normal(tokens, n, seed=1), normal(tokens, m, seed=2))
    a, g = (rows.T @ rows / len(rows) for rows in (sample.x, sample.g))

    def size(matrix: Tensor) -> Tensor:
        return torch.trace(g @ matrix @ a @ matrix.T)

    expected = torch.stack([size(change) - size(remainder(change, choice)) for choice in choices])
    torch.testing.assert_close(scores(change, choices, sample), expected, atol=1e-10, rtol=1e-9)


def test_with_white_gradients_curvature_is_the_mean_square_of_what_the_change_adds_to_the_output() -> None:
    change, x = normal(6, 8), normal(600, 8, seed=1)
    white = Sample(x, torch.eye(6, dtype=torch.float64).repeat(100, 1) * 6**0.5)
    found = float(scores(change, [Choice(1, 6)], white)[0])
    assert found == pytest.approx(float((x @ change.T).square().sum(dim=1).mean()))


@pytest.mark.parametrize(("n", "m", "choices"), SHAPES)
def test_with_the_identity_for_samples_curvature_is_energy_but_for_the_number_of_rows(
    n: int, m: int, choices: list[Choice]
) -> None:
    change = normal(m, n)
    identity = Sample(torch.eye(n, dtype=torch.float64), torch.eye(m, dtype=torch.float64))
    torch.testing.assert_close(scores(change, choices, identity) * n**2, scores(change, choices))


@pytest.mark.parametrize(("n", "m", "choices"), SHAPES)
def test_the_first_slots_of_a_projection_are_the_projection_at_that_rank(n: int, m: int, choices: list[Choice]) -> None:
    change = normal(m, n)
    largest = projections(change, choices)
    for count, rank in choices[1:]:
        alone = projections(change, [Choice(count, rank)])[count]
        assert torch.equal(largest[count][0][:, :rank], alone[0])
        assert torch.equal(largest[count][1][:, :, :rank], alone[1])
        best = to_dense(*alone, Link.CYCLIC, n, m)
        torch.testing.assert_close(change - best, remainder(change, Choice(count, rank)), atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("planted", CHOICES[1:], ids=str)
@pytest.mark.parametrize(("n", "m"), [(32, 48), (64, 64), (20, 33)])
@pytest.mark.parametrize("curved", [False, True])
def test_a_planted_change_is_kept_whole_by_its_class_and_by_no_cheaper_one(
    planted: Choice, n: int, m: int, curved: bool
) -> None:
    count, rank = planted
    first, second = normal(count, rank, -(-n // count)), normal(count, -(-m // count), rank, seed=1)
    change = dense(first, second, Link.CYCLIC, n, m)
    sample = Sample(normal(200, n, seed=2), normal(200, m, seed=3)) if curved else None
    found = scores(change, CHOICES, sample)
    whole = float(found.max())
    shares = {choice: float(score) / whole for choice, score in zip(CHOICES, found, strict=True)}
    assert shares[planted] == pytest.approx(1.0, abs=1e-10)
    cost = num_parameters(n, m, *planted)
    cheaper = [share for choice, share in shares.items() if choice.blk_r and num_parameters(n, m, *choice) < cost]
    assert all(share < 0.99 for share in cheaper)
    assert shares[Choice(1, 0)] == 0


def test_a_larger_rank_never_keeps_less() -> None:
    found = dict(zip(CHOICES, scores(normal(24, 16), CHOICES).tolist(), strict=True))
    assert all(found[Choice(n, 1)] < found[Choice(n, 2)] < found[Choice(n, 4)] for n in (1, 2, 4, 8))


def test_samples_in_float32_serve_a_change_in_float64() -> None:
    change, sample = normal(6, 8), Sample(normal(9, 8, dtype=torch.float32), normal(9, 6, dtype=torch.float32))
    expected = scores(change, CHOICES, Sample(sample.x.double(), sample.g.double()))
    assert torch.equal(scores(change, CHOICES, sample), expected)


class Net(nn.Module):
    """Three layers, of which the second is called twice and the last for nothing."""

    def __init__(self, frozen: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.unused, self.uncalled = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(2, 2)
        self.requires_grad_(not frozen)

    def layers(self) -> dict[str, nn.Module]:
        return dict(self.named_children())

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.a(x))
        self.unused(hidden)
        return self.b(torch.tanh(self.b(hidden))).square().sum()


def by_hand(net: Net, x: Tensor) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Input and gradient in the output of every call."""
    first = net.a(x).detach().requires_grad_()
    hidden = torch.tanh(first)
    second = net.b(hidden)
    third = net.b(torch.tanh(second))
    grads = torch.autograd.grad(third.square().sum(), [first, second, third])
    inputs = [x, hidden, torch.tanh(second)]
    (a, *b) = [(i.detach().flatten(0, -2), g.flatten(0, -2)) for i, g in zip(inputs, grads, strict=True)]
    unused = (hidden.detach().flatten(0, -2), torch.zeros(hidden[..., 0].numel(), 2))
    return {"a": [a], "b": b, "unused": [unused]}


@pytest.mark.parametrize("frozen", [False, True])
def test_samples_are_the_inputs_and_the_gradients_in_outputs_of_every_call(frozen: bool) -> None:
    net, batches = Net(frozen), [normal(2, 5, 3, dtype=torch.float32), normal(4, 3, seed=1, dtype=torch.float32)]
    samples = sample_layers(net.layers(), [lambda x=x: net(x) for x in batches])  # type: ignore[misc]
    calls = [by_hand(net, x) for x in batches]
    assert set(samples) == {"a", "b", "unused"}
    for name, sample in samples.items():
        expected = [torch.cat(parts) for parts in zip(*(pair for call in calls for pair in call[name]), strict=True)]
        torch.testing.assert_close([sample.x, sample.g], expected)
        assert sample.rows == len(sample.x)
    inputs = sample_inputs(net.layers(), [lambda x=x: net(x) for x in batches])  # type: ignore[misc]
    assert set(inputs) == set(samples)
    assert all(torch.equal(inputs[name], samples[name].x) for name in inputs)


def test_layers_that_the_loss_does_not_depend_on_have_zero_gradients() -> None:
    net = Net()
    samples = sample_layers(net.layers(), [lambda: net(torch.ones(5, 3))])
    assert torch.equal(samples["unused"].g, torch.zeros(5, 2))
    assert float(samples["unused"].x.abs().min()) > 0


@pytest.mark.parametrize("sample", [sample_layers, sample_inputs])
def test_sampling_touches_no_gradient_and_leaves_no_hook(sample: Callable[..., object]) -> None:
    net = Net()
    for number, parameter in enumerate(net.parameters()):
        parameter.grad = None if number % 2 else torch.full_like(parameter, 3.0)
    before = [parameter.grad for parameter in net.parameters()]
    copies = [None if grad is None else grad.clone() for grad in before]
    sample(net.layers(), [lambda: net(torch.ones(5, 3))])
    for parameter, grad, copy in zip(net.parameters(), before, copies, strict=True):
        assert parameter.grad is grad
        assert grad is None or (copy is not None and torch.equal(grad, copy))

    def failing() -> Tensor:
        raise RuntimeError("no loss")

    with pytest.raises(RuntimeError, match="no loss"):
        sample(net.layers(), [failing])
    assert not any(layer._forward_hooks for layer in net.layers().values())


def test_of_many_rows_evenly_spread_ones_are_kept_of_inputs_and_gradients_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TOKENS", 5)
    net = Net()
    x = torch.arange(27.0).view(9, 3) / 27
    (a,) = by_hand(net, x)["a"]
    sample = sample_layers(net.layers(), [lambda: net(x)])["a"]
    rows = [0, 2, 4, 6, 8]
    torch.testing.assert_close([sample.x, sample.g], [a[0][rows], a[1][rows]])
    assert sample.rows == 9
    both = sample_layers(net.layers(), [lambda: net(x), lambda: net(x)])["a"]
    assert len(both.x) == 5 and torch.equal(both.x[[0, -1]], x[[0, -1]])
    assert len(sample_inputs(net.layers(), [lambda: net(x)])["a"]) == 5


def test_every_loss_gives_as_many_rows_and_no_more_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOKENS", 6)
    net, held = Net(), []

    class Counting(module._Call):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            held.append(len(self.x))

    monkeypatch.setattr(module, "_Call", Counting)
    rows = [torch.arange(12.0).view(4, 3) + 100 * number for number in range(3)]
    sample = sample_layers({"a": net.a}, [lambda x=x: net(x) for x in rows])["a"]  # type: ignore[misc]
    assert held == [2, 2, 2]
    assert torch.equal(sample.x, torch.cat([x[[0, 3]] for x in rows]))
    assert sample.rows == 12


def test_a_model_may_change_a_sampled_output_in_place() -> None:
    layer = nn.Linear(3, 2).requires_grad_(False)
    x = normal(5, 3, dtype=torch.float32)
    sample = sample_layers({"layer": layer}, [lambda: layer(x).mul_(3.0).sum()])["layer"]
    assert torch.equal(sample.g, torch.full((5, 2), 3.0))


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_samples_are_the_same_where_activations_are_computed_anew(family: str) -> None:
    model, batch = tiny_classifier(family), tiny_batch()
    linears = target_linears(model, exclude=find_head(model))
    supernet = opened(model, build_space(linears, [1, 2], [0, 1]))
    plain = sample_layers(supernet.layers, [lambda: model(**batch).loss])
    model.gradient_checkpointing_enable({"use_reentrant": False})
    evaluation_mode(model)
    anew = sample_layers(supernet.layers, [lambda: model(**batch).loss])
    assert set(plain) == set(anew)
    for name, sample in plain.items():
        torch.testing.assert_close([anew[name].x, anew[name].g], [sample.x, sample.g])
        assert sample.rows == anew[name].rows


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_changes_and_samples_of_a_half_precision_model_are_float32(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(8, 12, dtype=dtype), nn.Tanh(), nn.Linear(12, 8, dtype=dtype))
    space = build_space({"0": (8, 12), "2": (12, 8)}, [1, 2], [0, 1, 2])
    supernet = opened(model, space)
    samples = sample_layers(supernet.layers, [lambda: model(torch.ones(5, 8, dtype=dtype)).float().square().mean()])
    found = spectrum(supernet, samples)
    tensors = [found.energy, found.curvature, *(t for sample in samples.values() for t in (sample.x, sample.g))]
    tensors += [factor for blocks in found.blocks.values() for pair in blocks.values() for factor in pair]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert all(layer.change().dtype == torch.float32 for layer in supernet.layers.values())
    assert all(bool(tensor.isfinite().all()) for tensor in tensors)


def opened(model: nn.Module, space: object) -> Supernet:
    supernet = Supernet(model, space, "per_nblocks")  # type: ignore[arg-type]
    with torch.no_grad():
        for weight in supernet.weights().values():
            weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    supernet.open()
    return supernet


def test_scores_of_a_group_are_the_sums_over_its_modules() -> None:
    model, batch = tiny_classifier("bert"), tiny_batch()
    linears = target_linears(model, exclude=find_head(model))
    by_module, by_type = build_space(linears, [1, 2, 4], [0, 1, 2]), build_space(linears, [1, 2, 4], [0, 1, 2], "type")
    supernet = opened(model, by_module)
    samples = sample_layers(supernet.layers, [lambda: model(**batch).loss])
    single = spectrum(supernet, samples)
    supernet.space = by_type
    grouped = spectrum(supernet, samples)
    order = list(by_module.groups)
    for row, names in enumerate(by_type.groups.values()):
        rows = [order.index(name) for name in names]
        torch.testing.assert_close(grouped.energy[row], single.energy[rows].sum(dim=0))
        torch.testing.assert_close(grouped.curvature[row], single.curvature[rows].sum(dim=0))


def test_a_layer_that_no_loss_calls_has_energy_but_no_curvature() -> None:
    net = Net(frozen=True)
    space = build_space({"a": (3, 4), "uncalled": (2, 2)}, [1, 2], [0, 1])
    supernet = opened(net, space)
    found = spectrum(supernet, sample_layers(supernet.layers, [lambda: net(torch.ones(2, 3))]))
    assert not found.curvature[1].any() and found.energy[1, 1:].min() > 0
    assert found.curvature[0, 1:].any()


def test_a_supernet_that_is_not_mixed_is_refused() -> None:
    net = Net(frozen=True)
    supernet = Supernet(net, build_space({"a": (3, 4)}, [1], [0, 1]), "per_nblocks")
    with pytest.raises(RuntimeError, match="open"):
        spectrum(supernet, {})


def test_curvature_counts_every_token_that_a_layer_sees() -> None:
    """The same vectors through the same weight, once an example and once for each of its tokens: the loss of a text is
    the sum over its tokens, so its second-order change is that many times as large."""
    torch.manual_seed(0)
    weight, tokens, examples = torch.randn(4, 6), 5, 64
    x = torch.randn(examples * tokens, 6)
    whole, split = torch.nn.Linear(6, 4, bias=False), torch.nn.Linear(6, 4, bias=False)
    for layer in (whole, split):
        layer.weight.data.copy_(weight)
    signs = torch.randn(examples * tokens, 4)

    def pooled() -> Tensor:
        return (whole(x[:examples]) * signs[:examples]).sum() / examples

    def by_token() -> Tensor:
        return (split(x.view(examples, tokens, 6)) * signs.view(examples, tokens, 4)).sum() / examples

    few, many = sample_layers({"a": whole}, [pooled])["a"], sample_layers({"a": split}, [by_token])["a"]
    assert (few.rows, many.rows) == (examples, examples * tokens)
    change = torch.randn(4, 6)
    blocks = projections(change, CHOICES)
    ratio = kept(change, blocks, CHOICES, many).sum() / kept(change, blocks, CHOICES, few).sum()
    assert 0.5 * tokens < ratio < 2 * tokens
