"""`served:` specs against a server in this process that holds a tiny model, honest or not."""

import re
import urllib.error
from dataclasses import replace

import pytest
import torch
from evenbits.cells import Subject, measure_damage
from evenbits.errors import EngineError, SpecError
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.records import Corpus
from evenbits.store import Store
from evenbits.variants import endpoint, served
from evenbits.variants.registry import parse
from model_server import serving

TEXTS = {
    "de": ("the inner thing an other", "er hat in an", "an inn on the river " * 12),
    "en": ("he is in the inn", "an inner one", "the other one on the hill"),
}


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    """A server is asked again at once: how long a run waits is no matter of these tests."""
    monkeypatch.setattr(endpoint.time, "sleep", lambda _seconds: None)


@pytest.fixture(scope="module")
def model(tiny_llama):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).train(mode=False)


@pytest.fixture
def subject(tiny_llama, tmp_path):
    store = Store(tmp_path / "store")
    return Subject(local=resolve(parse_model(str(tiny_llama)), store=store), store=store, dtype="float32", context=128)


@pytest.fixture
def corpus():
    return Corpus(name="t", source="here", languages=("de", "en"), segment_ids=("1", "2", "3"), texts=TEXTS)


@pytest.mark.parametrize("shape", ["vllm", "echo", "sglang"])
def test_an_honest_server_gives_the_losses_of_its_model(shape, model, subject, corpus):
    with serving(model, shape=shape) as server:
        rows = measure_damage(subject, [parse(f"served:{server.url}#tiny")], corpus).rows(seed=0)
    for row in rows:
        assert row["nll_quantized"] == pytest.approx(row["nll_full"], rel=1e-5)  # also of a text of several windows
        assert row["kl_nats_per_token"]["reason"] == "no KL: an endpoint gives no full distributions"
        assert row["bits_per_weight"] is None
        assert row["artefact"]["says"] == {"id": "tiny", "owned_by": "here", "max_model_len": 256}


@pytest.mark.parametrize(
    "case",
    [
        ("zeros", "all entries are 0.0"),
        ("generated only", "entries for|of other tokens"),
        ("early", "the first token has a log-probability"),
        ("off by one", "values are off by a place"),
        ("positive", "above 0"),
        ("not finite", "empty or not finite"),
        ("stale", "an earlier prompt's"),
        ("random", "asked again in another order"),
        ("after itself", "changes with the token that came there"),
    ],
)
@pytest.mark.parametrize("shape", ["vllm", "echo", "sglang"])
def test_a_server_that_lies_is_refused_before_anything_is_measured(case, shape, model, subject, corpus):
    lie, said = case
    with serving(model, shape=shape, lie=lie) as server:
        with pytest.raises(EngineError, match="cannot be measured") as refusal:
            measure_damage(subject, [parse(f"served:{server.url}")], corpus)
        assert re.search(said, str(refusal.value))
        assert "gguf:FILE" in str(refusal.value)
        sent = [body.get("prompt") for body in server.requests]
    assert len(sent) < 40


def test_a_server_whose_places_cannot_be_checked_is_refused(model, subject, corpus):
    said = "does not say what was most likely in each place"
    with serving(model, shape="echo", lie="no tops") as server, pytest.raises(EngineError, match=said):
        measure_damage(subject, [parse(f"served:{server.url}")], corpus)


def test_a_server_that_answers_after_some_errors_is_asked_again(model, subject, corpus):
    with serving(model, failures=3) as server:
        rows = measure_damage(subject, [parse(f"served:{server.url}")], corpus).rows(seed=0)
    assert rows[0]["nll_quantized"] == pytest.approx(rows[0]["nll_full"], rel=1e-5)


def test_a_window_longer_than_the_server_takes_is_a_sentence_with_the_length_to_serve_it_with(model, subject, corpus):
    """The window of 128 inputs and its last token make 129, and a server generates one more."""
    with serving(model, room=130) as server:
        assert measure_damage(subject, [parse(f"served:{server.url}")], corpus).rows(seed=0)
    with serving(model, room=129) as server, pytest.raises(EngineError, match=r"de has a window of 129 .*with 130"):
        measure_damage(subject, [parse(f"served:{server.url}")], corpus)


def test_a_number_that_stands_for_infinity_fails_its_spec_and_not_the_others(model, subject, corpus):
    with serving(model, lie="no infinity", honest=8) as server:
        found = measure_damage(subject, [parse("int4-g32"), parse(spec := f"served:{server.url}")], corpus)
    assert list(found.columns) == ["int4-g32"]
    assert "a log-probability in de is not finite" in found.failed[spec]


def test_a_prompt_that_the_server_cuts_by_a_token_is_refused_though_as_many_entries_come(model, subject, corpus):
    """The window of 128 inputs and its last token make 129: what is generated would pass as the last of them."""
    with serving(model, shape="echo", cut=128) as server, pytest.raises(EngineError, match=r"128 log-prob.* for 129"):
        measure_damage(subject, [parse(f"served:{server.url}")], corpus)


def test_a_model_that_is_changed_for_another_in_the_middle_is_refused(model, subject, corpus):
    said = "another model stands behind the name"
    with serving(model, lie="another model", honest=12) as server, pytest.raises(EngineError, match=said):
        measure_damage(subject, [parse(f"served:{server.url}")], corpus)
    with serving(model, named="tiny") as server:
        spec = parse(f"served:{server.url}")
        assert "answers_as" not in measure_damage(subject, [spec], corpus).rows(seed=0)[0]["artefact"]
        server.named = "fallback"
        other = replace(corpus, texts={tag: tuple(reversed(lines)) for tag, lines in corpus.texts.items()})
        with pytest.raises(EngineError, match="'fallback', build 'engine-1' answered, where model 'tiny'"):
            measure_damage(subject, [spec], other)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x15\x03\x01\x00\x02\x02\x16",  # TLS
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{",
        b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n40\r\nno",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
    ],
)
def test_what_is_no_whole_answer_is_a_sentence(raw, model, subject, corpus):
    with (
        serving(model, raw=raw) as server,
        pytest.raises(EngineError, match="gave no answer in 4 tries"),
    ):
        measure_damage(subject, [parse(f"served:{server.url}")], corpus)


def test_an_answer_that_drips_is_given_up_in_the_time_that_a_whole_one_has():
    class Dripping:
        def read1(self, _size):
            return b" "

    with pytest.raises(TimeoutError, match="not whole in time"):
        endpoint._whole_body(Dripping(), deadline=0.0)


@pytest.mark.parametrize(("said", "seconds"), [("7", 7.0), ("3600", 60.0), ("-1", 0.0), ("Sat, 28 Nov 2026", 0.0)])
def test_a_busy_server_is_asked_again_when_it_says_but_within_a_minute(said, seconds):
    error = urllib.error.HTTPError("http://x", 429, "busy", {"Retry-After": said}, None)
    assert endpoint._asked_pause(error) == seconds


def test_a_redirect_is_refused_and_the_key_goes_nowhere_else(model, subject, corpus, monkeypatch):
    monkeypatch.setenv("EVENBITS_SERVED_KEY", "secret-123\r\n")
    with serving(model) as elsewhere:
        raw = f"HTTP/1.1 302 Found\r\nLocation: {elsewhere.url}/v1/models\r\n\r\n".encode()
        with serving(model, raw=raw) as server:
            with pytest.raises(EngineError, match=f"answered HTTP 302 to {elsewhere.url}"):
                measure_damage(subject, [parse(f"served:{server.url}")], corpus)
            assert server.heard[0]["Authorization"] == "Bearer secret-123"
        assert elsewhere.heard == []


def test_a_key_is_never_shown(model, subject, corpus, monkeypatch):
    monkeypatch.setenv("EVENBITS_SERVED_KEY", "secret\x01-123")
    with serving(model) as server, pytest.raises(EngineError, match="a character that no header may have") as refusal:
        measure_damage(subject, [parse(f"served:{server.url}")], corpus)
    assert "secret" not in str(refusal.value)
    monkeypatch.setenv("EVENBITS_SERVED_KEY", "secret-123")
    raw = b"HTTP/1.1 401 No\r\nContent-Length: 23\r\n\r\nno such key: secret-123"
    with serving(model, raw=raw) as server, pytest.raises(EngineError, match=r"no such key: \(the key\)"):
        measure_damage(subject, [parse(f"served:{server.url}")], corpus)


def test_nobody_at_the_address_is_a_sentence(subject, corpus):
    with pytest.raises(EngineError, match=r"gave no answer in 4 tries.*Is the server up"):
        measure_damage(subject, [parse("served:http://127.0.0.1:9")], corpus)


def test_a_model_that_the_server_does_not_have_is_named(model, subject, corpus):
    with serving(model) as server, pytest.raises(EngineError, match="has no model 'other'; it lists tiny"):
        measure_damage(subject, [parse(f"served:{server.url}#other")], corpus)


def test_another_version_of_the_engine_is_measured_anew_and_the_row_says_which_it_was(model, subject, corpus):
    with serving(model) as server:
        spec = [parse(f"served:{server.url}#tiny")]
        assert measure_damage(subject, spec, corpus).rows(seed=0)[0]["artefact"]["build"] == "engine-1"
        before = len(server.requests)
        server.build = "engine-2"
        served._PROBES.clear()
        assert measure_damage(subject, spec, corpus).rows(seed=0)[0]["artefact"]["build"] == "engine-2"
        assert len(server.requests) - before >= before


def test_a_run_resumes_from_the_store_and_another_model_behind_the_name_is_measured_anew(model, subject, corpus):
    spec = "served:{}#tiny"
    with serving(model) as server:
        measure_damage(subject, [parse(spec.format(server.url))], corpus)
        before = len(server.requests)
        served._PROBES.clear()
        measure_damage(subject, [parse(spec.format(server.url))], corpus)
        asked_again = len(server.requests) - before
        texts = sum(len(texts) for texts in TEXTS.values())
        assert asked_again < before - texts + 1  # the probe alone
        other = torch.nn.Module()
        other.forward = lambda ids: type("Out", (), {"logits": model(ids).logits * 0.5})()
        server.model = other.forward
        served._PROBES.clear()
        rows = measure_damage(subject, [parse(spec.format(server.url))], corpus).rows(seed=0)
    assert rows[0]["nll_quantized"] != pytest.approx(rows[0]["nll_full"], rel=1e-3)


@pytest.mark.parametrize(
    "text",
    [
        "served:",
        "served:host:80",
        "served:ftp://host",
        "served:http://#m",
        "served:http://[",
        "served:http://[]",
        "served:http://h:99999",
        "served:http://h/a b",
    ],
)
def test_what_is_no_url_is_refused(text):
    with pytest.raises(SpecError, match="served:http://HOST:PORT#MODEL"):
        parse(text)


def test_a_key_in_a_url_would_be_in_every_report():
    with pytest.raises(SpecError, match="EVENBITS_SERVED_KEY"):
        parse("served:http://user:secret@host")


def test_the_text_round_trips():
    for text in ("served:http://host:8000/v1#org/model", "served:https://host"):
        assert str(parse(text)) == text
