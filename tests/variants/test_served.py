"""`served:` specs against a server in this process that holds a tiny model, honest or not."""

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from evenbits.cells import Subject, measure_damage
from evenbits.errors import EngineError, SpecError
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.records import Corpus
from evenbits.store import Store
from evenbits.variants import served
from evenbits.variants.registry import parse

TEXTS = {
    "de": ("the inner thing an other", "er hat in an", "an inn on the river " * 12),
    "en": ("he is in the inn", "an inner one", "the other one on the hill"),
}


class Server(ThreadingHTTPServer):
    """Serves `model`; `shape`: vllm, echo or sglang; `lie`: what is done to true log-probabilities before they go."""

    daemon_threads = True

    def __init__(self, model, *, shape="vllm", lie=None, failures=0, room=256):
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.shape, self.lie, self.failures, self.room = model, shape, lie, failures, room
        self.build = "engine-1"
        self.requests = []
        self.kept = {}
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def values(self, ids):
        """Return (log-probabilities of the tokens, of the most likely ones), as `lie` has them; for several threads."""
        with torch.inference_mode():
            rows = torch.log_softmax(self.model(torch.tensor([ids])).logits[0].double(), dim=1)
        tops = [None, *(float(rows[place].max()) for place in range(len(ids) - 1))]
        true = [None, *(float(rows[place, token]) for place, token in enumerate(ids[1:]))]
        if self.lie == "after itself":  # llama-cpp-python 0.3.36 where no BOS is added: what comes after a token, of it
            true = [None, *(float(rows[place, ids[place]]) for place in range(1, len(ids)))]
            tops = [None, *(float(rows[place].max()) for place in range(1, len(ids)))]
        if self.lie == "stale":  # the first answer of that length, whatever is asked next
            return self.kept.setdefault(len(ids), true), tops
        return LIES[self.lie](true) if self.lie in LIES else true, tops


NOISE = np.random.default_rng(0)
LIES = {
    "zeros": lambda true: [None, *[0.0] * (len(true) - 1)],
    "generated only": lambda _true: [-1.5],
    "off by one": lambda true: [None, *true[2:], -3.0],
    "early": lambda true: [*true[1:], -3.0],
    "positive": lambda true: [None, *(-value for value in true[1:])],
    "not finite": lambda true: [None, float("nan"), *true[2:]],
    "random": lambda true: [None, *(value + NOISE.normal() * 0.1 - 5 for value in true[1:])],
}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_args):
        pass

    def do_GET(self):
        self.answer({"data": [{"id": "tiny", "owned_by": "here", "max_model_len": self.server.room}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.requests.append(body)
            if server.failures:
                server.failures -= 1
                self.send_error(503)
                return
        self.answer(getattr(self, server.shape)(body))

    def vllm(self, body):
        if "prompt_logprobs" not in body:
            return {"choices": [{"text": "x"}]}
        server, ids = self.server, body["prompt"]
        values, likely = server.values(ids)
        rows = [
            None
            if value is None
            else {
                "-1": {"logprob": top, "rank": 1, "decoded_token": "?"},
                str(token): {"logprob": value, "rank": 2, "decoded_token": "?"},
            }
            for token, value, top in zip(ids, values, likely, strict=False)
        ]
        return {"choices": [{"text": "x", "prompt_logprobs": rows}], "system_fingerprint": server.build}

    def echo(self, body):
        server = self.server
        values, likely = server.values(body["prompt"])
        tops = [None if top is None else {"?": top} for top in likely]
        if not body.get("echo"):
            return {"choices": [{"logprobs": {"token_logprobs": [-0.5]}}]}
        if server.lie == "no tops":
            return {"choices": [{"logprobs": {"token_logprobs": [*values, -0.5]}}]}
        return {"choices": [{"logprobs": {"token_logprobs": [*values, -0.5], "top_logprobs": [*tops, {"?": -0.1}]}}]}

    def sglang(self, body):
        if "input_ids" not in body:
            return {"object": "error"}
        server, ids = self.server, body["input_ids"]
        values, likely = server.values(ids)
        rows = [[value, token, None] for value, token in zip(values, ids, strict=False)]
        meta = {"input_token_logprobs": rows, "output_token_logprobs": [[-0.5, 3, None]]}
        if body.get("top_logprobs_num"):
            meta["input_top_logprobs"] = [None if top is None else [[top, 7, None]] for top in likely]
        return {"text": "x", "meta_info": meta}

    def answer(self, content):
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    """A server is asked again at once: how long a run waits is no matter of these tests."""
    monkeypatch.setattr(served.time, "sleep", lambda _seconds: None)


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


@contextmanager
def serving(model, **options):
    served._PROBES.clear()
    server = Server(model, **options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


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
