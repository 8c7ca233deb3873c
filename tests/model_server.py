"""A server in this process that gives log-probabilities of a prompt's tokens by a tiny model, honestly or not."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import torch
from evenbits.variants import served


class Server(ThreadingHTTPServer):
    """Serves `model`; `shape`: vllm, echo or sglang; `lie`: what is done to true log-probabilities before they go.

    `honest`: so many answers are true first. `raw`: the bytes of every answer. `cut`: so many tokens of a prompt are
    read at most, the last ones. `named`: the model that answers say they are of.
    """

    daemon_threads = True

    def __init__(
        self, model, *, shape="vllm", lie=None, honest=0, failures=0, room=256, raw=None, cut=None, named=None
    ):
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.shape, self.lie, self.failures, self.room = model, shape, lie, failures, room
        self.honest, self.raw, self.cut, self.named = honest, raw, cut, named
        self.build = "engine-1"
        self.heard = []
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
        if len(self.requests) <= self.honest:
            return true, tops
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
    "no infinity": lambda true: [*true[:-1], -9999.0],
    "another model": lambda true: [None, *(value * 1.5 for value in true[1:])],
    "random": lambda true: [None, *(value + NOISE.normal() * 0.1 - 5 for value in true[1:])],
}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_args):
        pass

    def do_GET(self):
        self.server.heard.append(dict(self.headers))
        if self.server.raw is not None:
            self.wfile.write(self.server.raw)
            return
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
        named = {"model": server.named} if server.named else {}
        rows = [
            None
            if value is None
            else {
                "-1": {"logprob": top, "rank": 1, "decoded_token": "?"},
                str(token): {"logprob": value, "rank": 2, "decoded_token": "?"},
            }
            for token, value, top in zip(ids, values, likely, strict=False)
        ]
        return {"choices": [{"text": "x", "prompt_logprobs": rows}], "system_fingerprint": server.build, **named}

    def echo(self, body):
        server = self.server
        values, likely = server.values(body["prompt"][-server.cut :] if server.cut else body["prompt"])
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
