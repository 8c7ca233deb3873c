"""A model read layer by layer from disk: the numbers of a run in memory, with one layer there at a time."""

from contextlib import contextmanager

import architectures
import pytest
from evenbits.cells import Subject, measure_damage
from evenbits.cells.streaming import Streamed
from evenbits.errors import NotApplicableError
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.records import Corpus
from evenbits.store import Store
from evenbits.variants import registry
from evenbits.variants.quantization.spec import parse_spec, parse_specs

SPECS = parse_specs("nf4-b32+keep1%:magnitude+protect:model.layers.1+include:embedding,int4-g32+clip:mse,int8-row")
LANGUAGES = ("de", "fr", "yo")


def corpus_of(segments=4, length=9):
    said = " the inner an "
    texts = {tag: tuple(f"{tag} {i * 7}{said}" * (1 + i % length) for i in range(segments)) for tag in LANGUAGES}
    return Corpus(
        name="hand",
        source="written in the test",
        languages=LANGUAGES,
        segment_ids=tuple(f"s{i}" for i in range(segments)),
        texts=texts,
    )


@pytest.fixture
def subject(tmp_path):
    def make(folder, name, **options):
        store = Store(tmp_path / name)
        return Subject(local=resolve(parse_model(str(folder)), store=store), store=store, **{"context": 64, **options})

    return make


@pytest.fixture
def same_streamed(subject, monkeypatch):
    """`same_streamed(folder, specs, runner=...)`: that a table and its losses are those of a run in memory, to the bit.

    Returns the streamed subject.
    """

    def compare(folder, specs, **options):
        own = subject(folder, "memory", dtype="bfloat16")
        with monkeypatch.context() as memory:
            memory.setattr(type(own.runner._streamed), "fits", lambda *_: False)
            rows = measure_damage(own, specs, corpus_of()).rows(seed=0)
        streamed = subject(folder, "streamed", dtype="bfloat16", **options)
        assert measure_damage(streamed, specs, corpus_of()).rows(seed=0) == rows
        assert losses_of(streamed.store) == losses_of(own.store)
        return streamed

    return compare


def losses_of(store):
    """All losses in a store by their names, as bytes."""
    return {file.name: file.read_bytes() for file in (store.root / "losses").iterdir()}


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "smollm3"])
def test_a_streamed_table_is_that_of_a_run_in_memory_to_the_bit(architecture, tiny_model, same_streamed):
    assert not same_streamed(tiny_model(architecture, layers=3), SPECS, runner=Streamed())._loaded


@pytest.mark.parametrize("architecture", ["bloom", "gemma3_text", "gpt2", "gpt_neox", "olmo2", "opt", "xglm"])
def test_a_floor_by_a_models_own_layers_is_that_of_a_second_model_to_the_bit(architecture, tiny_model, same_streamed):
    found = same_streamed(tiny_model(architecture, layers=3), parse_specs("int4-g32"))
    assert list(found._loaded) == ["bfloat16"]


@pytest.mark.parametrize("architecture", ["qwen3_moe", "gemma4_text"])
def test_a_floor_of_experts_and_of_inputs_by_layer_needs_no_second_model(architecture, tmp_path, subject):
    streamed = subject(architectures.build(architecture, tmp_path / "model"), "streamed", dtype="bfloat16")
    measure_damage(streamed, parse_specs("int4-row"), corpus_of())
    assert list(streamed._loaded) == ["bfloat16"]


def test_no_two_layers_are_in_memory_at_once(tiny_model, subject, monkeypatch):
    from evenbits.models.skeleton import Skeleton

    held, real = [], Skeleton.layer

    @contextmanager
    def layer(self, index):
        with real(self, index):
            layers = self.loaded.model.model.layers
            held.append([i for i, one in enumerate(layers) if not any(p.is_meta for p in one.parameters())])
            yield

    monkeypatch.setattr(Skeleton, "layer", layer)
    streamed = subject(tiny_model("llama", layers=3), "streamed", dtype="float32", runner=Streamed())
    measure_damage(streamed, [parse_spec("int4-g32")], corpus_of())
    assert held[:3] == [[0], [1], [2]]
    assert all(len(one) == 1 for one in held)


def test_nothing_of_the_weights_is_held_after_a_dtype(tiny_model, subject):
    from evenbits.scoring import head

    before = len(head._kept)
    streamed = subject(tiny_model("llama"), "streamed", dtype="bfloat16", runner=Streamed())
    measure_damage(streamed, [parse_spec("int4-g32")], corpus_of())
    assert set(streamed.runner._skeletons) == {"bfloat16", "float32"}
    for skeleton in streamed.runner._skeletons.values():
        assert all(parameter.is_meta for parameter in skeleton.loaded.model.parameters())
    assert len(head._kept) == before


def test_text_that_does_not_fit_at_once_takes_more_passes_and_gives_the_same(tiny_model, subject, monkeypatch):
    import evenbits.cells.streaming as module

    folder, spec = tiny_model("llama"), [parse_spec("int4-g32")]
    whole = measure_damage(subject(folder, "one", dtype="float32", runner=Streamed()), spec, corpus_of()).rows(seed=0)
    monkeypatch.setattr(module, "KEPT_BYTES", 1)  # a pass for each text
    parts = measure_damage(subject(folder, "parts", dtype="float32", runner=Streamed()), spec, corpus_of()).rows(seed=0)
    assert parts == whole


def test_the_noise_floor_in_float32_never_loads_a_second_model(tiny_model, subject, monkeypatch):
    from evenbits.models import loading

    loads, real = [], loading.load

    def load(local, **options):
        loads.append(str(options["dtype"]))
        return real(local, **options)

    monkeypatch.setattr(loading, "load", load)
    own = subject(tiny_model("llama"), "memory", dtype="bfloat16")
    table = measure_damage(own, parse_specs("int4-g32,int8-row"), corpus_of())
    assert "float32" in table.columns["int4-g32"].floor_bits.method
    assert loads == ["torch.bfloat16"]


QUICK = ("gptj", "glm4_moe", "gemma4_text", "llama4")  # tables by position, buffers, shared keys, a wrapper


@pytest.mark.parametrize("architecture", architectures.every_type(*QUICK))
def test_every_type_is_streamed_as_it_is_measured_in_memory_to_the_bit(architecture, tmp_path, same_streamed):
    folder = architectures.build(architecture, tmp_path / "model")
    assert not same_streamed(folder, parse_specs("int4-row,int8-row"), runner=Streamed())._loaded


def test_what_needs_more_than_a_layer_is_refused_by_name(tiny_model, subject):
    streamed = subject(tiny_model("llama"), "streamed", runner=Streamed())
    with pytest.raises(NotApplicableError, match=r"without @global\. Leave --stream-layers out"):
        measure_damage(streamed, [parse_spec("int4-g32+keep1%:magnitude@global")], corpus_of())


def test_a_checkpoint_is_refused_by_its_own_name(tiny_model, subject):
    streamed = subject(tiny_model("llama"), "streamed", runner=Streamed())
    spec = registry.parse(f"checkpoint:{tiny_model('llama')}")
    with pytest.raises(NotApplicableError, match=r"^checkpoint:.* cannot be measured layer by layer"):
        measure_damage(streamed, [spec], corpus_of())


def test_a_model_whose_layers_are_not_all_of_it_is_refused_by_name(tiny_model, subject, monkeypatch):
    import evenbits.scoring.streamed as module

    monkeypatch.setattr(module, "close", lambda *_: False)
    streamed = subject(tiny_model("gpt2"), "streamed", runner=Streamed())
    with pytest.raises(NotApplicableError, match=r"on a gpt2 model .*: its layers, called one by one, do not give"):
        measure_damage(streamed, [parse_spec("int4-g32")], corpus_of())
    assert all(parameter.is_meta for parameter in streamed.runner._skeletons["bfloat16"].loaded.model.parameters())
