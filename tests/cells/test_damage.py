"""Measuring damage: what is stored is not computed again, whatever happened to the run before."""

import json
import math
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evenbits.cells import Subject, measure_damage, noise_floor
from evenbits.cells.damage import joined
from evenbits.cells.floor import floor_of
from evenbits.errors import NonFiniteError, SpecError
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.records import Corpus, Losses
from evenbits.scoring import beside
from evenbits.store import SEAL, DamagedEntryWarning, Store
from evenbits.variants.quantization.spec import parse_spec, parse_specs
from evenbits.variants.registry import parse
from evenbits.variants.rounding import rounded
from evenbits.variants.variant import FULL_PRECISION

LANGUAGES = ("de", "fr", "yo")
SPEC = parse_spec("int4-g32")


def text_of(tag, number):
    return f"{tag} {number}: " + " ".join([tag, "the inner an", str(number * 7)] * (1 + number % 3))


def corpus_of(languages=LANGUAGES, segments=4):
    return Corpus(
        name="hand",
        source="written in the test",
        languages=languages,
        segment_ids=tuple(f"s{i}" for i in range(segments)),
        texts={tag: tuple(text_of(tag, i) for i in range(segments)) for tag in languages},
    )


@pytest.fixture
def bench(tiny_llama, store):
    """`bench()` -> the tiny llama with nothing loaded; every call is a new run on the same store."""

    def make(folder=tiny_llama, store=store, **options):
        local = resolve(parse_model(str(folder)), store=store)
        return Subject(local=local, store=store, **{"dtype": "float32", **options})

    return make


@pytest.fixture
def scored(monkeypatch):
    """Languages that were really scored, in order; `scored.limit` kills the run at that call."""
    import evenbits.scoring

    class Calls(list):
        limit = None

    calls, real = Calls(), evenbits.scoring.score

    def score(loaded, language, *args, **kwargs):
        if calls.limit is not None and len(calls) >= calls.limit:
            raise KeyboardInterrupt
        calls.append(language)
        return real(loaded, language, *args, **kwargs)

    reading = beside.read

    def read(loaded, text, *, context):
        if calls.limit is not None and len(calls) >= calls.limit:
            raise KeyboardInterrupt
        calls.append(text.tag)
        return reading(loaded, text, context=context)

    monkeypatch.setattr(evenbits.scoring, "score", score)
    monkeypatch.setattr(beside, "read", read)
    return calls


def numbers(table):
    return {
        spec: (
            table.nll_full(spec).tolist(),
            table.kl_bits(spec).tolist(),
            table.nll_quantized(spec).tolist(),
            table.columns[spec].floor_bits.to_json(),
        )
        for spec in table.specs
    }


def test_every_cell_is_scored_once_and_a_second_run_scores_nothing(bench, scored, store):
    specs = parse_specs("int4-g32,int4-g32+keep1%:magnitude")
    first = measure_damage(bench(), specs, corpus_of())
    # 3 languages: full precision; the first spec; its noise floor (full and quantized in small batches, and quantized
    # without KL; full without KL is the full-precision cell). The second spec has the same grid, so the same floor.
    assert len(scored) == 3 + 3 + 3 * 3 + 3
    another = bench()  # files that rest by now are remembered
    misses = store.misses
    second = measure_damage(another, specs, corpus_of())
    assert len(scored) == 18
    assert store.misses == misses
    assert numbers(second) == numbers(first)


SEVERAL = "int4-g32,int4-g32+keep1%:magnitude,int3-row,int3-row+protect:model.layers.0,int4-row+include:head"


@pytest.mark.parametrize("held", [0, 1 << 30])
def test_several_specs_beside_one_full_precision_give_the_bytes_of_each_alone(bench, tmp_path, monkeypatch, held):
    monkeypatch.setattr("evenbits.cells.runner.HELD_BYTES", held)
    specs = parse_specs(SEVERAL)
    together = measure_damage(bench(), specs, corpus_of())
    for number, spec in enumerate(specs):
        alone = measure_damage(bench(store=Store(tmp_path / str(number))), [spec], corpus_of())
        assert numbers(alone)[str(spec)] == numbers(together)[str(spec)]


def test_a_run_killed_between_specs_keeps_what_was_held_together_and_gives_the_same_table(bench, scored, tmp_path):
    specs = parse_specs("int4-g32,int3-row")
    whole = measure_damage(bench(store=Store(tmp_path / "other")), specs, corpus_of())
    scored.clear()
    scored.limit = 3 + 3 + 1  # full precision, the first spec, one language of the second
    with pytest.raises(KeyboardInterrupt):
        measure_damage(bench(), specs, corpus_of())
    scored.limit = None
    assert numbers(measure_damage(bench(), specs, corpus_of())) == numbers(whole)


def test_a_run_that_the_store_serves_never_loads_the_model(bench, monkeypatch):
    first = measure_damage(bench(), [SPEC], corpus_of())

    def fail(*_args, **_kwargs):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("evenbits.models.loading.load", fail)
    assert numbers(measure_damage(bench(), [SPEC], corpus_of())) == numbers(first)
    with pytest.raises(AssertionError, match="was loaded"):
        measure_damage(bench(), [parse_spec("int3-row")], corpus_of())


def test_a_killed_run_resumes_and_gives_the_table_of_an_uninterrupted_one(bench, scored, tmp_path):
    whole = measure_damage(bench(store=Store(tmp_path / "other")), [SPEC], corpus_of())
    scored.clear()
    scored.limit = 4  # full precision of three languages, then de under the spec
    with pytest.raises(KeyboardInterrupt):
        measure_damage(bench(), [SPEC], corpus_of())
    assert scored == ["de", "fr", "yo", "de"]
    scored.clear()
    scored.limit = None
    resumed = measure_damage(bench(), [SPEC], corpus_of())
    # KL needs full precision again for the two languages that are missing; then these two, and the floor's nine
    assert scored[:4] == ["fr", "yo", "fr", "yo"]
    assert len(scored) == 4 + 9
    assert numbers(resumed) == numbers(whole)


def test_the_model_is_whole_again_after_a_run_was_killed_inside_a_spec(bench, scored):
    model = bench()
    plain = model.losses(FULL_PRECISION, corpus_of())
    weights = {name: p.detach().clone() for name, p in model.loaded().model.named_parameters()}
    scored.limit = len(scored) + 4
    with pytest.raises(KeyboardInterrupt):
        measure_damage(model, [SPEC], corpus_of())
    assert all(bool((weights[name] == p).all()) for name, p in model.loaded().model.named_parameters())
    assert plain["de"].nll.sum() > 0


def test_a_damaged_entry_is_measured_again(bench, scored, store):
    model, corpus = bench(), corpus_of()
    first = measure_damage(model, [SPEC], corpus)
    path = store._path("losses", model.cells(rounded(SPEC, model), corpus)[1].key())
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 1
    path.write_bytes(blob)
    scored.clear()
    with pytest.warns(DamagedEntryWarning, match="measured again"):
        again = measure_damage(bench(), [SPEC], corpus)
    assert scored == ["fr", "fr"]  # full precision for KL, then the damaged cell
    assert numbers(again) == numbers(first)


def test_another_text_of_one_language_leaves_the_other_cells_as_they_are(bench, scored):
    corpus = corpus_of(segments=6)  # the floor looks at four of them
    measure_damage(bench(), [SPEC], corpus)
    scored.clear()
    changed = Corpus(
        name="hand",
        source="written in the test",
        languages=LANGUAGES,
        segment_ids=corpus.segment_ids,
        texts={**corpus.texts, "yo": ("another text", *corpus.texts["yo"][1:])},
    )
    measure_damage(bench(), [SPEC], changed)
    assert set(scored) == {"yo"}


def test_a_shard_by_language_gives_the_rows_of_the_whole(bench, tmp_path):
    whole = measure_damage(bench(), [SPEC], corpus_of()).rows(seed=3)
    shards = []
    for tag in LANGUAGES:
        model = bench(store=Store(tmp_path / tag))
        shards += measure_damage(model, [SPEC], corpus_of().select(languages=(tag,))).rows(seed=3)
    assert shards == whole


def test_specs_keep_their_order_and_fine_grids_are_scored_in_float32(bench):
    table = measure_damage(bench(dtype="bfloat16"), parse_specs("int8-row,int4-g32,int6-row,int8-row"), corpus_of())
    assert table.specs == ("int8-row", "int4-g32", "int6-row")
    assert [table.columns[spec].dtype for spec in table.specs] == ["float32", "bfloat16", "float32"]
    assert "float32" in table.columns["int4-g32"].floor_bits.method  # bf16 is held against float32
    # 8 bits, one FP16 scale a row. q, k, v (64 + 32 + 32 rows) and gate, up (128 each) have 64 inputs: 8 + 16 / 64;
    # o (64 x 64) too; down (64 x 128) has 128 inputs: 8 + 16 / 128. Bits of scales over weights of a layer:
    rows, weights = 64 + 32 + 32 + 64 + 128 + 128 + 64, 64 * (64 + 32 + 32 + 64 + 128 + 128) + 64 * 128
    assert table.columns["int8-row"].bits_per_weight == pytest.approx(8 + 16 * rows / weights, rel=1e-12)


def test_a_group_that_does_not_divide_names_the_layer_before_anything_is_computed(bench, scored, store):
    with pytest.raises(SpecError, match=r"model\.layers\.0\.self_attn\.q_proj.*48"):
        measure_damage(bench(), parse_specs("int4-g32,int4-g48"), corpus_of())
    assert scored == []
    assert not (store.root / "losses").exists()


def test_full_precision_is_no_spec_to_measure(bench, scored):
    with pytest.raises(SpecError, match="measured against"):
        measure_damage(bench(), parse_specs("int4-g32,none"), corpus_of())
    assert scored == []


def test_a_spec_that_needs_probe_text_is_refused_before_anything_is_computed(bench, scored):
    with pytest.raises(SpecError, match="probe"):
        measure_damage(bench(), parse_specs("int4-g32,int4-g32+keep1%:activation"), corpus_of())
    assert scored == []


def test_nan_in_a_weight_names_the_tensor_and_stores_nothing(bench, tiny_llama, tmp_path, store):
    from safetensors.numpy import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(tiny_llama, broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = math.nan
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NonFiniteError, match=r"model\.layers\.1\.mlp\.up_proj"):
        measure_damage(bench(broken), [SPEC], corpus_of())
    assert not list(store.root.glob("losses/*"))


def test_random_retention_depends_on_the_seed_and_nothing_else_does(bench):
    spec, rng_free = parse_spec("int4-g32+keep5%:random"), SPEC
    one, two = bench(seed=1), bench(seed=2)
    assert rounded(spec, one).key != rounded(spec, two).key
    assert rounded(rng_free, one).key == rounded(rng_free, two).key
    nll = [measure_damage(model, [spec], corpus_of()).nll_quantized(str(spec)) for model in (one, two)]
    assert not np.array_equal(*nll)


def test_the_noise_floor_is_the_root_mean_square_of_a_language_mean(bench, monkeypatch):
    model, corpus = bench(dtype="bfloat16"), corpus_of(languages=("de", "fr"), segments=5)
    moved = {"float32": np.array([1.0, 3.0, 1.0, 3.0]), "batches": np.array([0.5, -0.5, 0.5, -0.5])}  # bits

    def losses_of(cell):
        assert cell.segment_ids == ("s0", "s1", "s2", "s4")  # four of five, spread evenly: 0, 4/3, 8/3, 4
        bits = np.full(4, 10.0)
        if cell.variant.key["spec"] != "full":
            bits = bits + 7.0
            if cell.small_batches:
                bits = bits + moved["batches"]
            elif cell.dtype == "float32":
                bits = bits + moved["float32"]
        ones = np.ones(4, dtype=np.int64)
        return Losses(
            language=cell.language,
            segment_ids=cell.segment_ids,
            nll=bits * math.log(2),
            tokens=ones,
            utf8_bytes=ones,
        )

    monkeypatch.setattr(model, "measure", lambda cells: [losses_of(cell) for cell in cells])
    floor = noise_floor(model, rounded(SPEC, model), corpus)
    # float32: d = 1, 3, 1, 3 in both languages: means 2, variance 4/3, 4 of S = 5 segments: sqrt(4 - 1/3 + 4/15).
    # other batches: means 0, variance 1/3, less than scatter explains: sqrt(1/15), smaller
    assert floor.value == pytest.approx(math.sqrt(4 - 1 / 3 + 4 / 15), rel=1e-9)
    assert floor.n == 8
    assert "bfloat16 against float32" in floor.method
    model.dtype = "float32"
    moved["float32"] = np.zeros(4)
    assert noise_floor(model, rounded(SPEC, model), corpus).value == pytest.approx(math.sqrt(1 / 15), rel=1e-9)


@pytest.mark.parametrize("segments", [20, 40, 100])
def test_a_bias_of_each_language_stays_in_its_noise_floor(segments):
    # biases and scatter with SD 1 move a language's mean by sqrt(1 + 1 / S); with languages pooled it was .46 to .36
    draw = np.random.default_rng(1)
    found = [floor_of(draw.standard_normal((8, 1)) + draw.standard_normal((8, 4)), segments) for _ in range(400)]
    # the mean square of 8 biases has an SD of about sqrt(2 / 8) x 1.25, that of 400 samples 3 %
    assert np.mean(np.square(found)) == pytest.approx(1 + 1 / segments, rel=0.1)


def test_scatter_alone_gives_the_noise_floor_of_scatter():
    draw, segments = np.random.default_rng(2), 20
    samples = draw.standard_normal((2000, 8, 4))
    found = [floor_of(one, segments) for one in samples]
    pooled = [math.sqrt(one.mean() ** 2 + one.var() / segments) for one in samples]  # as if languages had no own bias
    assert np.median(found) == pytest.approx(np.median(pooled), rel=0.05)
    assert np.sqrt(np.mean(np.square(found))) < 1.5 * math.sqrt(1 / segments)


def test_a_sample_that_is_the_whole_text_has_the_root_mean_square_of_its_language_means():
    # means 3 and 1; variances 2 and 2: sqrt((9 + 1) / 2 - 2 / 2 + 2 / 2)
    assert floor_of(np.array([[2.0, 4.0], [0.0, 2.0]]), 2) == pytest.approx(math.sqrt(5))
    assert floor_of(np.array([[3.0]]), 1) == 3.0  # one segment of one language


TWO_RUNS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from evenbits.cells import Subject, measure_damage
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.variants.quantization.spec import parse_specs
from evenbits.records import Corpus
from evenbits.store import Store
import torch
torch.set_num_threads(1)
store = Store(Path(sys.argv[3]))
data = json.loads(Path(sys.argv[4]).read_text(encoding="utf-8"))
corpus = Corpus(name="hand", source="test", languages=tuple(data), segment_ids=("a", "b", "c"), texts=data)
model = Subject(local=resolve(parse_model(sys.argv[2]), store=store), store=store, dtype="float32")
table = measure_damage(model, parse_specs("int4-g32,int3-row"), corpus)
print(json.dumps({"rows": table.rows(seed=0), "misses": store.misses}))
"""


def test_two_runs_at_once_share_a_store_and_compute_nothing_twice(bench, scored, tmp_path):
    alone = measure_damage(bench(store=Store(tmp_path / "alone")), [SPEC], corpus_of())
    expected = Store(tmp_path / "alone")
    scored.clear()
    stores = [Store(tmp_path / "shared"), Store(tmp_path / "shared")]
    with ThreadPoolExecutor(2) as pool:
        tables = list(pool.map(lambda one: measure_damage(bench(store=one), [SPEC], corpus_of()), stores))
    assert numbers(tables[0]) == numbers(tables[1]) == numbers(alone)
    entries = [len(list(one.root.glob("losses/*"))) for one in (expected, stores[0])]
    assert (
        entries[0] == entries[1] == 15
    )  # 3 languages x (full, full in small batches; the spec with KL, without, in small batches)


@pytest.mark.slow
def test_two_processes_share_a_store_and_get_the_same_rows(tiny_llama, tmp_path):
    corpus = tmp_path / "corpus.json"
    corpus.write_text(json.dumps({tag: [text_of(tag, i) for i in range(3)] for tag in LANGUAGES}), encoding="utf-8")
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-c", TWO_RUNS, root, str(tiny_llama), str(tmp_path / "store"), str(corpus)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    results = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], results
    first, second = (json.loads(out) for out, _ in results)
    assert first["rows"] == second["rows"]
    assert not list((tmp_path / "store").rglob("*.part"))
    kept = sum(1 for path in (tmp_path / "store").rglob("*") if path.is_file() and path.parent.name != "locks")
    assert first["misses"] + second["misses"] == kept  # every entry was computed by one of the two


def test_several_grids_share_the_states_of_full_precision_though_floors_go_to_float32(bench, monkeypatch):
    import evenbits.scoring

    kept, inner = [], evenbits.scoring.score

    def score(loaded, language, *args, **kwargs):
        if kwargs.get("keep_hidden"):
            kept.append(language)
        return inner(loaded, language, *args, **kwargs)

    monkeypatch.setattr(evenbits.scoring, "score", score)
    grids = [parse_spec(text) for text in ("int4-g32", "int3-g32", "int4-row")]
    measure_damage(bench(dtype="bfloat16"), grids, corpus_of())
    assert kept == list(LANGUAGES)


def test_each_document_is_one_column_and_the_mean_over_segments_stays(bench):
    whole = corpus_of(segments=6)
    documents = ("x", "x", "x", "y", "y", "z")
    plain = measure_damage(bench(), [SPEC], whole)
    found = measure_damage(bench(), [SPEC], replace(whole, documents=documents))
    spec = str(SPEC)
    assert found.excess_bits(spec).shape == (3, 3)
    for each in ("excess_bits", "nll_full", "kl_bits"):
        assert getattr(found, each)(spec).mean(axis=1) == pytest.approx(getattr(plain, each)(spec).mean(axis=1))
    assert found.perplexity_ratio(spec) == pytest.approx(plain.perplexity_ratio(spec))
    row, before = found.rows(seed=0, by_segment=True)[0], plain.rows(seed=0)[0]
    assert (row["segments"], row["documents"], row["excess_bits"]["n"]) == (6, 3, 3)
    assert len(row["excess_bits_by_segment"]) == 3
    assert "documents" not in before
    for each in ("excess_bits", "relative_increase"):
        assert row[each]["value"] == pytest.approx(before[each]["value"])
    assert row["kl_nats_per_token"]["mean"] == pytest.approx(before["kl_nats_per_token"]["mean"])
    parts = [
        measure_damage(bench(), [SPEC], replace(whole, documents=documents), indices=one)
        for one in ((0, 3), (1, 2, 4, 5))
    ]
    assert joined(parts).documents == ("x", "y", "x", "x", "y", "z")


@pytest.mark.parametrize("beside", [(), ("int4-g32",)])
def test_a_checkpoint_is_judged_from_what_was_measured_as_it_was_judged_where_it_is(bench, tiny_llama, beside):
    """A merge has no artefact at hand: how one is run, and so which full precision it is held against, comes along."""
    specs = [parse(text) for text in (*beside, f"checkpoint:{tiny_llama}")]
    subject = bench(dtype="bfloat16")
    there = measure_damage(subject, specs, corpus_of())
    np.testing.assert_array_equal(there.excess_bits(str(specs[-1])), 0.0)
    parts = subject.store.root.parent / "parts"
    subject.store.keep(parts)
    (parts / SEAL).write_text("")
    here = measure_damage(bench(dtype="bfloat16", store=Store(parts)), specs, corpus_of())
    assert here.rows(seed=0) == there.rows(seed=0)
