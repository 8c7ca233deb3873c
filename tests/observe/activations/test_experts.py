"""What fused experts read, and their gradients, are those of the same experts as plain products, one text at a time."""

from __future__ import annotations

import math
from collections import defaultdict

import architectures
import numpy as np
import pytest
import torch
from evenbits.cells import Subject
from evenbits.models.families import EXPERTS
from evenbits.models.loading import load
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.observe.activations.collection import measure
from evenbits.observe.activations.features import language_features
from evenbits.observe.activations.gradients import measure_gradients
from evenbits.observe.activations.importance import ActivationImportance
from evenbits.observe.activations.spikes import spike_peaks
from evenbits.records import Corpus
from evenbits.store import Store
from evenbits.studies.h035.rounding import measure_errors, weight_errors
from evenbits.variants.quantization.matrices import quantize_planned
from evenbits.variants.quantization.patching import checkpoint_source, plan_loaded
from evenbits.variants.quantization.spec import parse_spec
from evenbits.variants.zeroing import dropping
from torch import nn

QUICK = ("qwen3_moe", "mixtral", "gpt_oss", "deepseek_v3", "llama4_text")
TEXTS = ("the inner thing an inner thing", "Kaixo, zer moduz? " * 3, "they went in the tent and then")
OTHER = ("in the tin, in the tent", "an apple, another apple, and then none", "zer moduz, Kaixo")
CORPUS = Corpus(
    name="c", source="test", languages=("de", "en"), segment_ids=("a", "b", "c"), texts={"en": TEXTS, "de": OTHER}
)


class Plain(nn.Module):
    """The experts of a module as plain products, one after the other; it remembers what text tokens they read."""

    def __init__(self, fused, architecture):
        super().__init__()
        self.turned = architecture in {"gpt_oss", "llama4_text"}
        self.oss, self.act = architecture == "gpt_oss", getattr(fused, "act_fn", None)
        self.first = "gate_up_proj" if hasattr(fused, "gate_up_proj") else "up_proj"
        self.fused = {name: getattr(fused, name) for name in (self.first, "down_proj")}
        self.count = len(fused.down_proj)
        for name, held in self.fused.items():
            weights = [nn.Parameter(one.T.clone() if self.turned else one.clone()) for one in held.detach()]
            setattr(self, name, nn.ParameterList(weights))
        self.biases = {
            name: getattr(fused, f"{name}_bias").detach().clone() if self.oss else torch.zeros(self.count, 1)
            for name in self.fused
        }
        self.read = {name: defaultdict(list) for name in self.fused}
        self.everything = {name: defaultdict(list) for name in self.fused}

    def multiply(self, name, expert, x, tokens):
        y = x @ getattr(self, name)[expert].T
        self.read[name][expert].append(x[tokens > 0].detach())  # token 0 is the prefix
        self.everything[name][expert].append((x.detach(), y.detach()))
        return y + self.biases[name][expert]

    def inner(self, y):
        if self.oss:
            gate, up = y[:, ::2].clamp(max=7.0), y[:, 1::2].clamp(-7.0, 7.0)
            return (up + 1) * gate * torch.sigmoid(1.702 * gate)
        if self.first == "up_proj":
            return self.act(y)
        gate, up = y.chunk(2, dim=1)
        return up * self.act(gate)

    def expert(self, number, x, tokens):
        return self.multiply("down_proj", number, self.inner(self.multiply(self.first, number, x, tokens)), tokens)

    def forward(self, hidden, index=None, weights=None, **named):
        if index is None and not named:  # Llama 4
            parts = hidden.view(self.count, -1, hidden.shape[-1])
            out = torch.zeros_like(parts)
            for number, x in enumerate(parts):
                tokens = (x != 0).any(1).nonzero()[:, 0]
                out[number, tokens] = self.expert(number, x[tokens], tokens)
            return out.view(-1, hidden.shape[-1])
        index = named.get("router_indices", index)
        weights = named.get("routing_weights", weights)
        out = torch.zeros_like(hidden)
        for number in range(self.count):
            tokens, places = (index == number).nonzero().T
            y = self.expert(number, hidden[tokens], tokens)
            out = out.index_add(0, tokens, y * weights[tokens, places, None])
        return out


def unfused(loaded, architecture):
    """Put plain experts in the place of fused ones; by the path of their module."""
    found = {}
    for path in dict.fromkeys(one.name.rpartition(".")[0] for one in loaded.anatomy.linears if one.experts):
        found[path] = Plain(loaded.model.get_submodule(path), architecture)
        loaded.model.set_submodule(path, found[path])
    return found


def run(loaded, texts, plain, *, backward=False, power=2):
    """Read `texts` one by one; with `backward` return the mean `power` of the gradient by every expert's matrix."""
    squares = defaultdict(float)
    for text in texts:
        ids = torch.tensor([[0, *loaded.tokenizer(text, add_special_tokens=False)["input_ids"]]])
        with torch.set_grad_enabled(backward):
            logits = loaded.model(input_ids=ids, use_cache=False).logits[0, :-1]
            loss = nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
        if backward:
            weights = {
                (f"{path}.{name}", number): weight
                for path, module in plain.items()
                for name in module.fused
                for number, weight in enumerate(getattr(module, name))
            }
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            for key, gradient in zip(weights, gradients, strict=True):
                squares[key] = squares[key] + (torch.zeros_like(weights[key]) if gradient is None else gradient**power)
    return {key: total / len(texts) for key, total in squares.items()}


@pytest.fixture(
    scope="module", params=[pytest.param(one, marks=() if one in QUICK else pytest.mark.slow) for one in EXPERTS]
)
def both(request, tmp_path_factory):
    """The type, its tiny model, another of it with plain experts, and these."""
    folder = architectures.build(request.param, tmp_path_factory.mktemp("experts") / "model")
    local = resolve(parse_model(str(folder)), store=Store(tmp_path_factory.mktemp("experts") / "store"))
    fused, other = (load(local, dtype=torch.float32) for _ in range(2))
    return request.param, fused, other, unfused(other, request.param)


def experts_of(plain):
    for path, module in plain.items():
        for name in module.fused:
            yield f"{path}.{name}", module, name


def cleared(plain):
    for _, module, name in experts_of(plain):
        module.read[name].clear()
        module.everything[name].clear()


def test_a_state_of_linear_attention_is_not_taken_for_attention_weights(tmp_path):
    local = resolve(parse_model(str(architectures.build("minimax", tmp_path / "m"))), store=Store(tmp_path / "store"))
    found = measure(load(local, dtype=torch.float32), TEXTS, language="en")
    assert (found.sink_mass, found.head_norm) == (None, None)
    features = language_features(found)
    assert (features["sink_mass"], features["head_utilisation_entropy"]) == (None, None)
    assert features["channel_entropy"] > 0


def test_second_moments_are_over_the_tokens_sent_to_each_expert(both):
    _, fused, other, plain = both
    cleared(plain)
    run(other, TEXTS, plain)
    found = measure(fused, TEXTS, language="en")
    for key, module, name in experts_of(plain):
        for number in range(module.count):
            x = torch.cat(module.read[name][number]).double().numpy()
            assert found.routed[key][number] == len(x)
            square = (x**2).mean(0) if len(x) else np.zeros(x.shape[1])
            peak = abs(x).max(0) if len(x) else np.zeros(x.shape[1])
            np.testing.assert_allclose(found.input_square[key][number], square, rtol=1e-4, atol=1e-7)
            np.testing.assert_allclose(found.input_peak[key][number], peak, rtol=1e-4, atol=1e-6)
        every = torch.cat([rows for read in module.read[name].values() for rows in read]).double().numpy()
        np.testing.assert_allclose(found.channel_square(key), (every**2).mean(0), rtol=1e-4, atol=1e-7)
        assert found.energy(key).sum() == pytest.approx(1)


def test_peaks_include_the_prefix(both):
    _, fused, other, plain = both
    cleared(plain)
    run(other, TEXTS, plain)
    found = spike_peaks(fused, TEXTS)
    for key, module, name in experts_of(plain):
        rows = len(found[key].outputs) // module.count
        for number in range(module.count):
            x, y = (torch.cat(part).numpy() for part in zip(*module.everything[name][number], strict=True))
            if not len(x):
                continue
            np.testing.assert_allclose(found[key].inputs[number], abs(x).max(0), rtol=1e-4, atol=1e-6)
            own = found[key].outputs[number * rows : (number + 1) * rows]
            np.testing.assert_allclose(own, abs(y).max(0), rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_each_experts_matrix(both):
    _, fused, other, plain = both
    expected = run(other, TEXTS[:2], plain, backward=True)
    found = measure_gradients(fused, TEXTS[:2], language="en")
    for key, module, _ in experts_of(plain):
        whole = torch.cat([expected[key, number] for number in range(module.count)])
        torch.testing.assert_close(found[key], whole, rtol=2e-3, atol=1e-7 * float(whole.max()) + 1e-12)
        assert float(whole.max()) > 0


def test_errors_of_rounding_are_those_of_plain_products(both, tmp_path):
    _, fused, other, plain = both
    cleared(plain)
    run(other, TEXTS, plain)
    squares = run(other, TEXTS[:2], plain, backward=True)
    slopes = run(other, TEXTS, plain, backward=True, power=1)
    deltas = weight_errors(fused, CORPUS, parse_spec("int3-row"), store=Store(tmp_path / "store"), seed=0)
    found = measure_errors(fused, TEXTS, "en", {"s": deltas})["s"]
    cleared(plain)
    run(other, TEXTS, plain)
    place = list(deltas)
    for key, module, name in experts_of(plain):
        lost = signal = weighted = first_order = 0.0
        parts = deltas[key].split(len(deltas[key]) // module.count)
        for number, delta in enumerate(parts):
            x = torch.cat(module.read[name][number])
            lost += float(((x @ delta.T) ** 2).sum())
            signal += float(((x @ getattr(module, name)[number].detach().T) ** 2).sum())
            first_order -= float((slopes[key, number] * delta).sum()) / math.log(2)
            weighted += 0.5 * float((squares[key, number] * delta**2).sum()) / math.log(2)
        assert found.relative[place.index(key)] == pytest.approx(lost / signal, rel=1e-3)
        assert found.first_order[place.index(key)] == pytest.approx(first_order, rel=1e-2, abs=1e-3)
        assert found.weighted[place.index(key)] == pytest.approx(weighted, rel=1e-2)


@pytest.mark.parametrize("criterion", ["activation", "activation[de]", "sensitivity", "superweight"])
def test_retention_keeps_what_scores_highest_by_each_experts_own_inputs(criterion, both, tmp_path):
    _, fused, other, plain = both
    spec = parse_spec(f"int4-row+keep2%:{criterion}")
    importance = ActivationImportance(fused, CORPUS, store=Store(tmp_path / "store"), gradient_segments=2)
    planned = plan_loaded(fused, spec)
    kept = {one.name: one.kept for one in quantize_planned(planned, checkpoint_source(fused), importance=importance)}
    languages = ("de",) if "[de]" in criterion else ("de", "en")
    for key, scores in scores_of(other, plain, criterion.partition("[")[0], languages).items():
        limit = scores.flatten().kthvalue(scores.numel() - len(kept[key]) + 1).values
        clear = (scores.flatten() - limit).abs() > 1e-3 * limit  # rounding decides between equals
        chosen = torch.zeros(scores.numel(), dtype=torch.bool)
        chosen[kept[key]] = True
        assert torch.equal(chosen[clear], (scores.flatten() > limit)[clear])


def scores_of(other, plain, criterion, languages):
    """Scores O x I of all experts, one below the other, from what plain experts read."""
    moments = defaultdict(list)
    squares = []
    for tag in languages:
        cleared(plain)
        run(other, CORPUS.texts[tag], plain)
        for key, module, name in experts_of(plain):
            for number in range(module.count):
                x = torch.cat(module.read[name][number])
                moments[key, number].append(None if not len(x) else x.double().square().mean(0))
        squares.append(run(other, CORPUS.texts[tag][:2], plain, backward=True))
    cleared(plain)
    run(other, [text for tag in languages for text in CORPUS.texts[tag][:2]], plain)
    found = {}
    for key, module, name in experts_of(plain):
        rows = []
        for number, weight in enumerate(getattr(module, name)):
            w = weight.detach()
            if criterion == "activation":
                known = [one for one in moments[key, number] if one is not None]
                rows.append(w.abs() * (torch.stack(known).mean(0).sqrt() if known else torch.zeros(w.shape[1])))
            elif criterion == "superweight":
                x, y = (torch.cat(part) for part in zip(*module.everything[name][number], strict=True))
                peak_I, peak_O = (abs(one).amax(0) if len(x) else torch.zeros(one.shape[1]) for one in (x, y))
                rows.append(w.abs() * peak_I * peak_O[:, None])
            else:
                scale = (w.abs().amax(1, keepdim=True) / 7).half().float()
                rounded = (w / scale).round().clamp(-7, 7) * scale
                rows.append((w - rounded) ** 2 * sum(one[key, number] for one in squares))
        found[key] = torch.cat(rows)
    return found


def test_clipping_by_language_weighs_each_experts_inputs(both, tmp_path):
    _, fused, _, _ = both
    importance = ActivationImportance(fused, CORPUS, store=Store(tmp_path / "store"))
    found = []
    for clip in ("mse", "mse[de]", "mse[en]"):
        planned = plan_loaded(fused, parse_spec(f"int4-g16+clip:{clip}"))
        made = quantize_planned(planned, checkpoint_source(fused), importance=importance)
        found.append({one.name: one.values for one in made})
    for linear in fused.anatomy.linears:
        if linear.experts:
            assert not torch.equal(found[0][linear.name], found[1][linear.name])
            assert not torch.equal(found[1][linear.name], found[2][linear.name])


def test_a_tenth_of_the_channels_of_all_experts_is_dropped_each_of_one_expert(both):
    _, fused, _, _ = both
    before = {name: weight.detach().clone() for name, weight in fused.model.named_parameters()}
    with dropping(fused, kind="channel", seed=(0, 0)):
        for _, product in fused.anatomy.feeding():
            w_OI = product.matrix(fused.model.get_parameter(product.parameter))
            empty = (w_OI.reshape(max(1, product.experts), -1, w_OI.shape[1]) == 0).all(dim=1)
            assert int(empty.sum()) == round(empty.numel() / 10)
    assert all(torch.equal(before[name], weight) for name, weight in fused.model.named_parameters())


def test_a_super_weight_is_looked_for_in_every_expert(tmp_path):
    folder = architectures.build("qwen3_moe", tmp_path / "model")
    store = Store(tmp_path / "store")
    subject = Subject(local=resolve(parse_model(str(folder)), store=store), store=store, dtype="float32", probe=CORPUS)
    experts = subject.loaded().model.model.layers[1].mlp.experts
    experts.gate_up_proj.data[2, [7, 48 + 7]] *= 10  # inner channel 7 of expert 2, gate and up
    experts.down_proj.data[2, 5, 7] = 40.0  # and what it writes to channel 5; 64 rows each
    first, *others = subject.super_weight_candidates()
    assert (first.place, first.weight) == ("model.layers.1.mlp.experts.down_proj[133, 7]", 40.0)
    assert len(others) + 1 == 3 * 4
