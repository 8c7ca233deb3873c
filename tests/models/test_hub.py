"""Hub models: a cache laid out as huggingface_hub does, and a small server that answers as the hub does."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import hub_cache
import pytest
from evenbits.errors import IntegrityError, ModelError, UnsafeModelError
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from hub_cache import COMMIT


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of huggingface_hub."""
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def cached(cache, tiny_llama):
    """The tiny llama in the cache as tiny/llama: revision main and tag v1."""
    repository = hub_cache.put(cache, "tiny/llama", tiny_llama, commit=COMMIT)
    (repository / "refs" / "v1").write_text(COMMIT)
    return repository


class Hub(BaseHTTPRequestHandler):
    """Answers the metadata calls of the hub for a gated, a pickle-only and a revision-less repository."""

    def do_GET(self):
        if "/api/models/tiny/gated" in self.path:
            self.answer(403, {"error": "gated"}, "GatedRepo")
        elif "/api/models/tiny/llama/revision/v9" in self.path:
            self.answer(404, {"error": "revision"}, "RevisionNotFound")
        elif "/api/models/tiny/pickled/tree/" in self.path:
            files = [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in ("pytorch_model.bin",)]
            self.answer(200, files)
        elif "/api/models/tiny/pickled" in self.path:
            self.answer(200, {"id": "tiny/pickled", "sha": COMMIT, "siblings": [{"rfilename": "pytorch_model.bin"}]})
        elif "/api/models/tiny/broken" in self.path:
            self.answer(400, {"error": "something is wrong"})
        else:
            self.answer(404, {"error": "not found"}, "RepoNotFound")

    do_HEAD = do_GET  # noqa: N815 - the name http.server asks for

    def answer(self, status, content, code=None):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def online(monkeypatch):
    """`online(address)`: downloads are on and the hub is at `address`."""
    from huggingface_hub import constants, hf_api

    def switch(address):
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(hf_api.constants, "ENDPOINT", address)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        from huggingface_hub.utils import close_session

        close_session()

    return switch


@pytest.fixture
def server(online):
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        online(f"http://127.0.0.1:{listening.server_port}")
        yield
        listening.shutdown()
        thread.join()


def refuse(text, kind, match, store, **options):
    with pytest.raises(kind, match=match):
        resolve(parse_model(text), store=store, **options)
    assert [path for path in store.root.rglob("*") if path.is_file() and path.parent.name != "locks"] == []


@pytest.mark.parametrize("text", ["tiny/llama", "tiny/llama@v1", f"tiny/llama@{COMMIT}"])
def test_a_cached_model_is_found_by_branch_tag_and_commit(text, cached, tiny_llama, store):
    local = resolve(parse_model(text), store=store, offline=True)
    assert local.folder == cached / "snapshots" / COMMIT
    assert local.fingerprint == resolve(parse_model(str(tiny_llama)), store=store).fingerprint


def test_a_model_that_is_not_cached_says_so_offline(cached, store):  # noqa: ARG001 - the cache is in place
    refuse("tiny/other", ModelError, r"tiny/other \(revision main\) is not in the local .* cache, and downloads", store)
    refuse("tiny/llama@v2", ModelError, r"\(revision v2\) is not in the local", store, offline=True)


def test_the_environment_switches_downloads_off_too(cache, store, online, monkeypatch):  # noqa: ARG001 - empty cache
    online("http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refuse("tiny/other", ModelError, "downloads are switched off", store)


def test_an_altered_blob_is_refused_by_its_checksum(cached, store):
    blob = (cached / "snapshots" / COMMIT / "model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    content[-5] ^= 4
    blob.write_bytes(content)
    with pytest.raises(IntegrityError, match=rf"model\.safetensors has SHA-256 .* the hub gave {blob.name}.*Delete"):
        resolve(parse_model("tiny/llama"), store=store, offline=True)


def test_a_hub_that_cannot_be_reached_is_told_from_a_wrong_name(cache, store, online):  # noqa: ARG001 - empty cache
    online("http://127.0.0.1:9")  # the discard port: nothing listens
    refuse("tiny/other", ModelError, "the hub could not be reached; check the network", store)


def test_a_cached_model_is_used_when_the_hub_cannot_be_reached(cached, store, online):
    online("http://127.0.0.1:9")
    assert resolve(parse_model("tiny/llama"), store=store).folder == cached / "snapshots" / COMMIT


@pytest.mark.usefixtures("cache", "server")
def test_an_unknown_id_is_named(store):
    refuse("tiny/unknown", ModelError, r"there is no model tiny/unknown on the .* hub .*check the spelling", store)


@pytest.mark.usefixtures("cache", "server")
def test_a_gated_model_says_how_to_get_in(store):
    refuse("tiny/gated", ModelError, "tiny/gated is gated .*accept its terms.*HF_TOKEN", store)


@pytest.mark.usefixtures("cache", "server")
def test_an_unknown_revision_is_named(store):
    refuse("tiny/llama@v9", ModelError, "tiny/llama has no revision 'v9'", store)


@pytest.mark.usefixtures("cache", "server")
def test_a_repository_with_pickles_only_says_so(store):
    refuse("tiny/pickled", UnsafeModelError, r"offers only pickle checkpoints \(pytorch_model\.bin\)", store)


@pytest.mark.usefixtures("cache", "server")
def test_another_answer_of_the_hub_is_passed_on(store):
    refuse("tiny/broken", ModelError, r"(?s)tiny/broken .* the hub answered: .*something is wrong", store)
