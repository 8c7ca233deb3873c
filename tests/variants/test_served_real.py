"""`served:` against a real server: llama-cpp-python's, with `logits_all`, on the reference model a1.

It takes no token ids and, where no BOS is added, puts each prompt token's value one place too late: so it is refused.
"""

import http.client
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time

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
from evenbits.variants import served
from evenbits.variants.registry import parse

PYTHON = os.environ.get("EVENBITS_LLAMA_CPP_SERVER", sys.executable)
"""A Python that has llama-cpp-python[server]."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.executable == PYTHON and importlib.util.find_spec("llama_cpp") is None,
        reason="needs llama-cpp-python[server]: `tox run -e server` compiles it, or EVENBITS_LLAMA_CPP_SERVER names a "
        "Python that has it",
    ),
]
TEXT = "The quick brown fox jumps over the lazy dog."


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return resolve(parse_model("reference:a1"), store=Store(tmp_path_factory.mktemp("models") / "store"))


@pytest.fixture(scope="module")
def url(local, tmp_path_factory):
    """Where the server answers; a float32 file of a1."""
    folder = tmp_path_factory.mktemp("server")
    file = tiny_models.build_gguf(local.folder, folder / "a1.gguf")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PYTHON, "-m", "llama_cpp.server", "--model", str(file), "--model_alias", "a1", "--logits_all", "true"]
    command += ["--n_ctx", "256", "--n_threads", "1", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            for _ in range(240):
                if process.poll() is not None or up(port):
                    break
                time.sleep(0.5)
            assert process.poll() is None, (folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:]
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=30)


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


def test_it_takes_no_token_ids_and_is_refused_in_its_own_words_before_anything_is_measured(
    url, local, tmp_path, monkeypatch
):
    monkeypatch.setattr(served.time, "sleep", lambda _seconds: None)
    subject = Subject(local=local, store=Store(tmp_path / "store"), dtype="float32", context=256)
    corpus = Corpus(name="t", source="here", languages=("en",), segment_ids=("1",), texts={"en": (TEXT,)})
    with pytest.raises(EngineError, match="cannot be measured") as refusal:
        measure_damage(subject, [parse(f"served:{url}#a1")], corpus)
    assert "Input should be a valid string" in str(refusal.value) or "HTTP 500" in str(refusal.value)
    assert "measure the file itself, gguf:FILE" in str(refusal.value)
    assert not (tmp_path / "store" / "losses").exists()


def test_asked_by_text_its_values_are_of_what_comes_after_a_token_which_the_probe_would_refuse(url, local):
    """Value i of `echo` is the probability of token i where token i has just been read."""
    body = {"prompt": TEXT, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1, "model": "a1"}
    _, answer = asked(int(url.rpartition(":")[2]), "/v1/completions", body)
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
