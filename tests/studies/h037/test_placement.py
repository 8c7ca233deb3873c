"""Q3, second half: where outlier weights and their damage lie, by layer and by kind of matrix."""

import numpy as np
import pytest
import weight_records
from evenbits.cells import Subject
from evenbits.estimates import Verdict
from evenbits.records import Corpus
from evenbits.studies.h037 import SHARES, Ablation, Placement, outliers_in_few_layers, place_outliers
from evenbits.studies.h037.placement import effective_share, holding_half, members_of

TAGS = ("ar", "de", "en", "fi", "fr", "hi", "ja", "ko", "ru", "sw")


def rng(seed=0):
    return np.random.default_rng(seed)


def ablations(bits=10.0, floor=0.1):
    return {
        share: Ablation(
            share=share, languages=TAGS, top=np.full((10, 8), bits), random=np.zeros((10, 8)), floor_bits=floor
        )
        for share in SHARES
    }


def placement(level, share, bits, *, spread=0.0, seed=0):
    """Damage by unit, 10 languages x 8 segments, with noise of its own in every cell."""
    noise = spread * rng(seed).standard_normal((len(bits), 10, 8))
    excess = np.asarray(bits, dtype=float)[:, None, None] + noise
    return Placement(
        level=level, share=share, units=tuple(str(i) for i in range(len(bits))), languages=TAGS, excess=excess
    )


def placements(layers, kinds=(1.0, 1.0), **options):
    return [
        placement(level, share, bits, **options)
        for share in SHARES
        for level, bits in (("layer", layers), ("kind", kinds))
    ]


@pytest.mark.parametrize(
    ("damage", "share"),
    [  # (sum d)^2 / (U sum d^2)
        ([1, 1, 1, 1], 1.0),
        ([1, 0, 0, 0], 0.25),
        ([1, 1, 0, 0], 0.5),
        ([3, 1], 16 / 20),
        ([2, -5], 0.5),
    ],
)
def test_the_effective_share_is_one_over_the_herfindahl_index_per_unit(damage, share):
    assert effective_share(np.array([damage], dtype=float))[0] == pytest.approx(share)


def test_without_damage_there_is_no_effective_share():
    assert np.isnan(effective_share(np.array([[0.0, -1.0]]))[0])


def test_half_is_held_by_the_fewest_units():
    assert holding_half({"a": 1, "b": 5, "c": 4}) == ("b",)
    assert holding_half({"a": 3, "b": 4, "c": 3}) == ("b", "a")
    assert holding_half({"a": 0}) == ()


def test_damage_of_one_layer_is_per_layer_and_that_of_all_is_distributed():
    few = outliers_in_few_layers(weight_records.model(), ablations(), placements((8, 0.2, 0.1, 0.1)), rng=rng())
    assert few.verdict is None
    assert few.estimate.value < 0.3
    assert "half lies in 1 of 4 layers (0 95%)" in few.because
    assert "No weight lies beyond 5 sigma." in few.because
    all_of_them = outliers_in_few_layers(weight_records.model(), ablations(), placements((2, 2, 2, 2)), rng=rng())
    assert all_of_them.estimate.value == pytest.approx(1.0)
    assert set(few.also) == {"layers_at_super_weights", "kinds_at_general_outliers", "kinds_at_super_weights"}


def test_an_interval_that_holds_the_bound_leaves_the_question_open():
    noisy = placements((4, 3, 0.5, 0.2), spread=12.0, seed=3)
    finding = outliers_in_few_layers(weight_records.model(), ablations(), noisy, rng=rng())
    assert finding.estimate.low < 0.5 < finding.estimate.high
    assert finding.verdict is None  # the interval decides, and does not


def test_without_damage_nothing_lies_anywhere():
    finding = outliers_in_few_layers(weight_records.model(), ablations(bits=0.05), placements((1, 1)), rng=rng())
    assert finding.verdict is Verdict.NOT_APPLICABLE


def test_outlier_weights_are_counted_by_layer_and_kind():
    statistics = weight_records.model(beyond={(0, "q_proj"): 60, (1, "q_proj"): 15, (1, "up_proj"): 25})
    finding = outliers_in_few_layers(statistics, ablations(), placements((1, 1)), rng=rng())
    counts = finding.data["weights_beyond_5_sigma"]
    assert counts["layer"] == {"0": 60, "1": 40}
    assert {kind: n for kind, n in counts["kind"].items() if n} == {"q_proj": 75, "up_proj": 25}
    assert "Of the 100 weights beyond 5 sigma, half lies in 1 of 2 layers (0 60%)" in finding.because
    assert "1 of 7 kinds (q_proj 75%)" in finding.because


def test_every_matrix_belongs_to_one_layer_and_one_kind():
    members = members_of(weight_records.model().tensors)
    assert list(members["layer"]) == ["0", "1"]
    assert list(members["kind"]) == list(weight_records.KINDS)
    for level in members.values():
        assert sum(len(names) for names in level.values()) == 14


def test_layers_and_kinds_are_zeroed_one_at_a_time_and_stored(tiny_llama, store):
    from evenbits.cells import measure
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.variants.zeroing import without_largest

    texts = {tag: tuple(f"{tag} {i}: the inner an the {i * 31}" for i in range(2)) for tag in ("de", "fr")}
    corpus = Corpus(name="hand", source="test", languages=("de", "fr"), segment_ids=("s0", "s1"), texts=texts)

    def bench():
        local = resolve(parse_model(str(tiny_llama)), store=store)
        return Subject(local=local, store=store, dtype="float32")

    model = bench()
    found = {(one.level, one.share): one for one in place_outliers(model, corpus)}
    assert {key: one.excess.shape for key, one in found.items()} == {
        (level, share): (units, 2, 2) for share in SHARES for level, units in (("layer", 3), ("kind", 7))
    }
    # zeroing a hundred times more weights of a layer changes more
    assert (np.abs(found["layer", 1e-2].excess).mean((1, 2)) > np.abs(found["layer", 1e-4].excess).mean((1, 2))).all()
    # the sweep over layers gives what zeroing the tensors of one layer gives
    names = members_of(model.weight_statistics().tensors)["layer"]["1"]
    by_hand = without_largest(1e-2, where="by hand", modules=names)
    direct = measure(model, {"by hand": by_hand}, corpus).excess_bits("by hand")
    np.testing.assert_allclose(found["layer", 1e-2].excess[1], direct, atol=1e-3)
    second = bench()  # files that rest by now are remembered
    misses = store.misses
    again = place_outliers(second, corpus)
    assert store.misses == misses
    np.testing.assert_array_equal(again[0].excess, found["layer", 1e-4].excess)
