"""`gguf:` specs from text to damage rows."""

import numpy as np
import pytest
from evenbits.cells import Subject, measure_damage
from evenbits.errors import EngineError, IntegrityError, ModelError, SpecError
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.records import Corpus
from evenbits.store import Store
from evenbits.variants.gguf import GgufFile
from evenbits.variants.gguf_rounding import GgufRounding
from evenbits.variants.registry import parse, parse_specs
from llama_cpp_builds import needs_llama_cpp

TEXTS = {
    "de": ("the inner thing an other", "er hat in an", "an inn on the river"),
    "en": ("he is in the inn", "an inner one", "the other one on the hill"),
}


@pytest.fixture
def corpus():
    return Corpus(name="t", source="here", languages=("de", "en"), segment_ids=("1", "2", "3"), texts=TEXTS)


@pytest.fixture
def subject(tiny_llama, tmp_path):
    store = Store(tmp_path / "store")
    return Subject(local=resolve(parse_model(str(tiny_llama)), store=store), store=store, dtype="float32", context=256)


def test_a_text_is_a_file_or_a_file_type():
    assert parse("gguf:some/m.gguf") == GgufFile(path=parse("gguf:some/m.gguf").path)
    assert isinstance(parse("gguf:Q4_K_M"), GgufRounding)
    for text in ("gguf:some/m.gguf", "gguf:m.gguf@kv:f32", "gguf:Q6_K@imatrix[de]"):
        assert str(parse(text)) == text
    assert [str(spec) for spec in parse_specs("gguf:Q4_K_M@imatrix[de,fr],gguf:a.gguf")] == [
        "gguf:Q4_K_M@imatrix[de,fr]",
        "gguf:a.gguf",
    ]


@pytest.mark.parametrize("text", ["gguf:", "gguf:Q9", "gguf:m.gguf@kv:q8", "gguf:q4_k_m"])
def test_what_is_neither_is_refused(text):
    with pytest.raises(SpecError):
        parse(text)


def test_a_missing_file_and_a_missing_part_are_named(tmp_path, subject):
    with pytest.raises(ModelError, match=r"there is no file .*m\.gguf"):
        parse(f"gguf:{tmp_path}/m.gguf").variant(subject)
    (tmp_path / "m-00001-of-00002.gguf").touch()
    with pytest.raises(IntegrityError, match=r"has 2 parts, and m-00002-of-00002.gguf is missing"):
        parse(f"gguf:{tmp_path}/m-00001-of-00002.gguf").variant(subject)


@needs_llama_cpp
def test_a_file_is_measured_by_the_engine_that_runs_it(subject, corpus, tiny_gguf):
    spec = parse(f"gguf:{tiny_gguf}@kv:f32")
    rows = measure_damage(subject, [spec], corpus).rows(seed=0)
    assert [row["language"] for row in rows] == ["de", "en"]
    for row in rows:
        # the same float32 weights: a ten-thousandth of a nat a segment
        assert abs(row["excess_bits"]["value"]) < 1e-4 / np.log(2)
        assert row["kl_nats_per_token"]["mean"] < 1e-6
        assert row["bits_per_weight"] == 32
        found = row["artefact"]
        assert (found["engine"], found["kv_cache"]) == ("llama.cpp", "f32")
        assert found["version"]
        assert found["build"]
        assert found["device"]
        assert found["tensor_types"]["F32"] > 20


@needs_llama_cpp
def test_a_stored_file_is_not_run_again_and_other_content_is(subject, corpus, tiny_gguf, tmp_path, monkeypatch):
    from evenbits.variants.llama_cpp import engine

    file = tmp_path / "m.gguf"
    file.write_bytes(tiny_gguf.read_bytes())
    measure_damage(subject, [parse(f"gguf:{file}")], corpus)

    def refuse(*_args, **_kwargs):
        raise AssertionError("it ran again")

    monkeypatch.setattr(engine, "GgufEngine", refuse)
    measure_damage(subject, [parse(f"gguf:{file}")], corpus)
    data = bytearray(file.read_bytes())
    data[-5] ^= 1  # one weight of the last tensor; the same length, and perhaps the same time
    file.write_bytes(data)
    with pytest.raises(AssertionError, match="it ran again"):
        measure_damage(subject, [parse(f"gguf:{file}")], corpus)


@needs_llama_cpp
def test_another_tokenizer_leaves_bits_and_says_why_there_is_no_kl(subject, corpus, tiny_llama, tmp_path):
    """Its merges are other ones, so its tokens are; bits per segment compare all the same."""
    import json
    import shutil

    import tiny_models

    folder = tmp_path / "other"
    shutil.copytree(tiny_llama, folder)
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    described["model"]["merges"] = described["model"]["merges"][1:]  # no "Ġ t", so no "Ġthe" either
    (folder / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    file = tiny_models.build_gguf(folder, tmp_path / "other.gguf")
    rows = {row["language"]: row for row in measure_damage(subject, [parse(f"gguf:{file}")], corpus).rows(seed=0)}
    assert rows["en"]["excess_bits"]["value"] != 0
    kl = rows["en"]["kl_nats_per_token"]
    assert (kl["mean"], kl["p50"], kl["p99"]) == (None, None, None)
    assert kl["reason"] == "no KL: 2 of 3 segments in en have other tokens, the first is 1"
    assert rows["en"]["top1_changed"] is None


BOS, EOS = "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"


@needs_llama_cpp
@pytest.mark.parametrize("named", [None, 40])
def test_the_bos_that_a_file_names_is_no_damage(subject, corpus, tiny_llama, tmp_path, named):
    """The same weights and tokens: text begins with the original's BOS, 0, whatever the file says."""
    import tiny_models

    file = tiny_models.build_gguf(tiny_llama, tmp_path / "m.gguf", entries={BOS: named})
    for row in measure_damage(subject, [parse(f"gguf:{file}@kv:f32")], corpus).rows(seed=0):
        assert abs(row["excess_bits"]["value"]) < 1e-4 / np.log(2)
        assert row["kl_nats_per_token"]["mean"] < 1e-6


@needs_llama_cpp
@pytest.mark.parametrize(
    ("entries", "prefix"), [({BOS: 40}, 40), ({BOS: None}, 1), ({BOS: None, EOS: None}, None), ({BOS: 999}, 1)]
)
def test_a_file_s_own_prefix_is_the_bos_that_its_metadata_names_else_the_eos(tiny_llama, tmp_path, entries, prefix):
    """Without a key llama.cpp's own answer is token 11; the tiny model's EOS is 1, and it has 272 tokens."""
    import tiny_models
    from evenbits.variants.llama_cpp.engine import GgufEngine

    file = tiny_models.build_gguf(tiny_llama, tmp_path / "m.gguf", entries=entries)
    with GgufEngine(file, context=16, threads=1) as engine:
        assert engine.prefix == prefix
        assert [engine.text_of(token) for token in (0, 271, 272)] == ["<s>", "[unused271]", None]


class _Engine:
    path = "m.gguf"

    def __init__(self, zero, prefix):
        self.zero, self.prefix = zero, prefix

    def text_of(self, token):
        return {0: self.zero}[token]


@pytest.mark.parametrize(("zero", "own", "used"), [("<s>", 40, 0), ("<s>", None, 0), ("<other>", 40, 40)])
def test_text_begins_with_the_original_s_prefix_where_the_file_writes_that_token_alike(subject, zero, own, used):
    from evenbits.variants.gguf import _prefix
    from evenbits.variants.tokens import OriginalTokens

    assert _prefix(_Engine(zero, own), OriginalTokens.of(subject)) == used


def test_another_vocabulary_without_bos_and_eos_is_refused(subject):
    from evenbits.variants.gguf import _prefix
    from evenbits.variants.tokens import OriginalTokens

    with pytest.raises(EngineError, match=r"m\.gguf: .* names neither a BOS nor an EOS token"):
        _prefix(_Engine("<other>", None), OriginalTokens.of(subject))


def test_rounding_is_a_spec_like_any_other(subject, corpus):
    pytest.importorskip("libgguf", reason="needs libgguf: pip install 'evenbits[backends]'")
    rows = measure_damage(subject, [parse("gguf:Q8_0"), parse("gguf:Q4_0")], corpus).rows(seed=0)
    coarse = [row for row in rows if row["spec"] == "gguf:Q4_0"]
    fine = [row for row in rows if row["spec"] == "gguf:Q8_0"]
    assert {row["bits_per_weight"] for row in fine} == {8.5}
    assert fine[0]["artefact"]["tensor_types"] == {"Q8_0": 22}
    assert fine[0]["artefact"]["weights_only"] is True
    for one, other in zip(coarse, fine, strict=True):
        assert one["kl_nats_per_token"]["mean"] > 10 * other["kl_nats_per_token"]["mean"] > 0


def test_an_imatrix_needs_probe_text(subject, corpus):
    pytest.importorskip("libgguf", reason="needs libgguf: pip install 'evenbits[backends]'")
    with pytest.raises(SpecError, match="measured on probe text"):
        measure_damage(subject, [parse("gguf:Q4_0@imatrix")], corpus)


def test_a_spec_that_needs_probe_text_says_so():
    from evenbits.variants.registry import needs

    assert [needs(parse(text)) for text in ("gguf:Q4_0", "gguf:Q4_0@imatrix", "gguf:m.gguf", "int4-g32")] == [
        False,
        True,
        False,
        False,
    ]


class TestFailures:
    """What happens to the others when one engine dies."""

    @pytest.fixture
    def dying(self, monkeypatch, tiny_gguf):
        from evenbits.errors import EngineError
        from evenbits.variants import gguf

        def die(_self, _original):
            from contextlib import contextmanager

            from evenbits.variants.variant import Variant

            @contextmanager
            def runs(_opened):
                raise EngineError("llama.cpp died (SIGSEGV) while scoring")
                yield

            return Variant(label="dying", key={"dying": True}, runs=runs)

        monkeypatch.setattr(gguf.GgufFile, "variant", die)
        return parse(f"gguf:{tiny_gguf}")

    def test_the_other_specs_are_measured_and_the_sentence_is_kept(self, dying, subject, corpus):
        damage = measure_damage(subject, [dying, parse("int4-g32")], corpus)
        assert damage.specs == ("int4-g32",)
        assert damage.failed == {str(dying): "llama.cpp died (SIGSEGV) while scoring"}

    def test_nothing_else_to_measure_is_the_error_itself(self, dying, subject, corpus):
        from evenbits.errors import EngineError

        with pytest.raises(EngineError, match="SIGSEGV"):
            measure_damage(subject, [dying], corpus)

    @pytest.mark.usefixtures("plain_terminal")
    def test_the_command_prints_what_there_is_and_exits_with_2(self, dying, tiny_llama, text_folder):
        from evenbits.commands.app import app
        from typer.testing import CliRunner

        folder = text_folder(("de", "en"))
        told = ["damage", str(tiny_llama), "--corpus", f"dir:{folder}", "--spec", f"{dying},int4-g32", "--familiar"]
        done = CliRunner().invoke(app, told)
        assert done.exit_code == 2
        assert "int4-g32" in done.stdout
        assert "as llama.cpp names it" in done.stdout  # --familiar, whose headings fold in 80 columns
        assert "llama.cpp died (SIGSEGV)" in done.stderr
