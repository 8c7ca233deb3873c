"""The sweep gives what scoring every changed model from the start gives, on every architecture."""

from __future__ import annotations

import architectures
import pytest

TEXTS = {
    "de": ("Der Hund schläft unter dem Tisch.", "Nein.", "Speichern unter einem anderen Namen"),
    "en": ("The dog sleeps under the table.", "No.", "Save under another name"),
}
IDS = ("a", "b", "c")
ARCHITECTURES = ("llama", "gpt2", "bloom", "gpt_neox", "opt", "gemma3_text")


def load_tiny(folder, tmp_path, dtype="float32"):
    import torch
    from evenbits.models.loading import load
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.store import Store

    return load(resolve(parse_model(str(folder)), store=Store(tmp_path / "store")), dtype=getattr(torch, dtype))


def single_layer_changes(loaded, text="int3-row"):
    from evenbits.scoring.sweep import Change
    from evenbits.variants.quantization.patching import quantized
    from evenbits.variants.quantization.spec import parse_spec

    spec = parse_spec(text)
    return [
        Change(layer=index, apply=lambda name=name: quantized(loaded, spec.with_only(name)))
        for index, name in enumerate(loaded.anatomy.layers)
    ]


def from_the_start(loaded, change):
    from evenbits.scoring import score

    with change.apply():
        return {tag: score(loaded, tag, IDS, texts)[0] for tag, texts in TEXTS.items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_sweep_gives_the_losses_of_scoring_from_the_start(architecture, tiny_model, tmp_path):
    from evenbits.scoring import score
    from evenbits.scoring.sweep import sweep

    loaded = load_tiny(tiny_model(architecture, layers=3), tmp_path)
    changes = single_layer_changes(loaded)
    [swept] = sweep(loaded, IDS, TEXTS, changes)
    for tag, texts in TEXTS.items():
        assert swept.full[tag].nll == pytest.approx(score(loaded, tag, IDS, texts)[0].nll, rel=1e-5)
    check_changes(loaded, changes, swept)


def check_changes(loaded, changes, swept):
    for change, found in zip(changes, swept.changed, strict=True):
        expected = from_the_start(loaded, change)
        for tag in TEXTS:
            assert found[tag].nll == pytest.approx(expected[tag].nll, rel=1e-5)
            assert abs(found[tag].nll - swept.full[tag].nll).max() > 1e-4  # the change did something


QUICK = ("gemma4_text", "mamba2", "nemotron_h", "qwen3_moe")


@pytest.mark.parametrize("architecture", architectures.every_type(*QUICK))
def test_a_sweep_of_every_type_gives_the_losses_of_scoring_from_the_start(architecture, tmp_path, monkeypatch):
    """Keys that later layers share, experts, state spaces: what a layer is given may come from those before it."""
    from evenbits.scoring import sweep as module

    loaded = load_tiny(architectures.build(architecture, tmp_path / "model"), tmp_path)
    changes = single_layer_changes(loaded)
    monkeypatch.delattr(module, "_from_the_start")  # the layers are called one by one, whatever the type
    [swept] = module.sweep(loaded, IDS, TEXTS, changes)
    check_changes(loaded, changes, swept)


def test_layers_before_the_change_run_once_for_all_changes(tiny_model, tmp_path):
    from evenbits.scoring.sweep import sweep

    loaded = load_tiny(tiny_model("llama", layers=3), tmp_path)
    calls = [0, 0, 0]
    for index, name in enumerate(loaded.anatomy.layers):
        module = loaded.model.get_submodule(name).mlp.down_proj
        module.register_forward_hook(lambda *_, index=index: calls.__setitem__(index, calls[index] + 1))
    list(sweep(loaded, IDS, {"en": TEXTS["en"]}, single_layer_changes(loaded)))
    # one batch. Layer 0: full precision, its own change, moving on. Layer 1: full, changes of 0 and 1, moving on.
    # Layer 2: full, changes of 0, 1 and 2; nothing is left to move on to.
    assert calls == [3, 4, 4]


def test_changes_may_come_in_any_order_and_several_to_a_layer(tiny_model, tmp_path):
    from evenbits.scoring.sweep import sweep

    loaded = load_tiny(tiny_model("llama", layers=3), tmp_path)
    changes = single_layer_changes(loaded)
    [forward] = sweep(loaded, IDS, TEXTS, changes)
    [mixed] = sweep(loaded, IDS, TEXTS, [changes[2], changes[0], changes[2]])
    for place, origin in enumerate((2, 0, 2)):
        for tag in TEXTS:
            assert mixed.changed[place][tag].nll == pytest.approx(forward.changed[origin][tag].nll, rel=1e-9)


def test_where_layers_cannot_be_run_one_by_one_every_change_is_scored_from_the_start(tiny_model, tmp_path, monkeypatch):
    from evenbits.scoring import sweep as module

    loaded = load_tiny(tiny_model("gpt2", layers=3), tmp_path)
    changes = single_layer_changes(loaded)
    [replayed] = module.sweep(loaded, IDS, TEXTS, changes)
    # A final norm that the layers' own results never meet: the check on the first batch must notice.
    monkeypatch.setattr(module.ReplayLayers, "finish", lambda _self, state, _batch: state[0][0])
    [started] = module.sweep(loaded, IDS, TEXTS, changes)
    for place in range(3):
        for tag in TEXTS:
            assert started.changed[place][tag].nll == pytest.approx(replayed.changed[place][tag].nll, rel=1e-5)


def test_the_model_leaves_a_sweep_as_it_came(tiny_model, tmp_path):
    import torch
    from evenbits.scoring.sweep import sweep

    loaded = load_tiny(tiny_model("llama", layers=3), tmp_path)
    before = {name: parameter.detach().clone() for name, parameter in loaded.model.named_parameters()}
    list(sweep(loaded, IDS, TEXTS, single_layer_changes(loaded)))
    after = dict(loaded.model.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_languages_beyond_the_memory_bound_come_in_further_chunks_with_the_same_losses(
    tiny_model, tmp_path, monkeypatch
):
    from evenbits.scoring import sweep as module

    loaded = load_tiny(tiny_model("llama", layers=3), tmp_path)
    changes = single_layer_changes(loaded)
    [whole] = module.sweep(loaded, IDS, TEXTS, changes)
    monkeypatch.setattr(module, "KEPT_BYTES", 1)  # no two languages fit
    parts = list(module.sweep(loaded, IDS, TEXTS, changes))
    assert [list(part.full) for part in parts] == [["de"], ["en"]]
    for part in parts:
        for tag in part.full:
            assert part.changed[1][tag].nll == pytest.approx(whole.changed[1][tag].nll, rel=1e-9)


def test_a_shift_that_is_far_off_still_gives_the_right_likelihood():
    import torch
    from evenbits.scoring.head import Head, predict
    from evenbits.scoring.sweep import _nll

    generator = torch.Generator().manual_seed(0)
    head = Head(weight=torch.randn(50, 8, generator=generator), bias=None, softcap=None)
    hidden, targets = torch.randn(6, 8, generator=generator), torch.arange(6)
    expected = predict(head, hidden, targets, top1=False)
    for shift in (0.0, 200.0, -200.0):  # near, everything underflows, everything overflows
        found = _nll(head, hidden, targets, expected.lse + shift)
        assert found.numpy() == pytest.approx(expected.nll.numpy(), rel=1e-5)
