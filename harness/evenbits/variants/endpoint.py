"""An endpoint that gives log-probabilities of a prompt's own tokens: how it is asked, and whether it can be trusted.

Servers answer such questions wrongly in ways that look right: with generated tokens only, zeros, values moved by one
place (as llama-cpp-python's does where no BOS is added), those of an earlier prompt from a cache, or of a prompt that
they cut. So before anything is measured the endpoint is probed, and one that fails is refused with what it did.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from evenbits.errors import EngineError

__all__ = ["KEY", "WAYS", "Answer", "Endpoint", "distance", "probe"]

KEY = "EVENBITS_SERVED_KEY"
LARGEST = 1 << 28  # bytes of an answer; log-probabilities of a long window take some thousands
TIMEOUT = 300.0  # seconds until an answer is whole; a cold server compiles at its first request
TRIES = 4
LONGEST_PAUSE = 60.0  # seconds, whatever a busy server asks for
SAID = 200  # bytes of a refusal that are shown
REPEATED = 1e-3  # nats a token; batched kernels do not repeat themselves bit for bit
NO_NUMBER = -9999.0
"""What vLLM writes for minus infinity, which JSON does not have; no true log-probability is as small."""

Values = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Log-probabilities by token of a prompt: `values` of the token itself, `tops` of the most likely one there.

    `by`: who answered, as far as the server says: `model`, and `build` (OpenAI's `system_fingerprint`).
    """

    values: Values
    tops: Values
    by: Mapping[str, str] = field(default_factory=dict)


class _Unredirected(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: urllib would send the key to the other host, too, and a question without its body."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """A server's completions for one `model`. `described`: its entry in the list of models."""

    url: str
    model: str
    described: Mapping[str, Any] = field(default_factory=dict)
    timeout: float = TIMEOUT
    pause: float = 1.0

    def models(self) -> list[dict[str, Any]]:
        """Return the entries of the server's list of models."""
        found = self._ask("/models", None).get("data")
        return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []

    def identity(self) -> dict[str, Any]:
        """Return what tells this deployment from another: model, owner, root and version as the server gives them."""
        known = {name: self.described.get(name) for name in ("id", "root", "owned_by", "max_model_len")}
        return {"model": self.model, "says": {name: value for name, value in known.items() if value is not None}}

    def check_room(self, longest: int, language: str) -> None:
        """Raise `EngineError` where a prompt of `longest` tokens and the one generated are more than it takes."""
        room = self.described.get("max_model_len")
        if isinstance(room, int) and longest + 1 > room:
            raise EngineError(
                f"{self.url}: {language} has a window of {longest} tokens, one more must be generated, and the server "
                f"takes {room}; serve it with {longest + 1} (vLLM: --max-model-len)"
            )

    def completion(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a completion request; tried again after time-outs and errors of the server."""
        return self._ask("/completions", {"model": self.model, **body})

    def generate(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer of SGLang's own route."""
        root = self.url.removesuffix("/v1")
        return self._ask("/generate", body, base=root)

    def _ask(self, path: str, body: Mapping[str, Any] | None, *, base: str | None = None) -> dict[str, Any]:
        address = (base if base is not None else self.url if self.url.endswith("/v1") else f"{self.url}/v1") + path
        headers, key = {"Content-Type": "application/json", "Cache-Control": "no-cache"}, _key()
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data=data, headers=headers)  # noqa: S310 - http or https, see parse
        for attempt in range(1, TRIES + 1):
            pause = self.pause * 2 ** (attempt - 1)
            try:
                with _opener().open(request, timeout=self.timeout) as answer:
                    found = json.loads(_whole_body(answer, time.monotonic() + self.timeout))
            except urllib.error.HTTPError as error:
                last = f"HTTP {error.code}{_refusal(error, key)}"
                if error.code < 500 and error.code != 429:
                    raise EngineError(f"{address} answered {last}") from None
                pause = max(pause, _asked_pause(error))
            except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
                last = str(error) or type(error).__name__
            else:
                if isinstance(found, dict):
                    return found
                last = "an answer that is no JSON object"
            if attempt < TRIES:
                time.sleep(pause)
        raise EngineError(
            f"{address} gave no answer in {TRIES} tries: {last}. Is the server up, and the address right?"
        )


@cache
def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_Unredirected)


def _key() -> str:
    """Return the key that is sent, empty where there is none; what a file's end adds to it is no part of it."""
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise EngineError(f"{KEY} holds a character that no header may have; set it to the key alone.")
    return key


def _whole_body(answer: http.client.HTTPResponse, deadline: float) -> bytes:
    """Return the body; `TimeoutError` where it is not whole by `deadline`: time-outs of urllib are for each piece."""
    parts, size = [], 0
    while piece := answer.read1(1 << 16):
        parts.append(piece)
        size += len(piece)
        if size > LARGEST:
            raise ValueError(f"an answer of more than {LARGEST >> 20} MiB")
        if time.monotonic() > deadline:
            raise TimeoutError("the answer was not whole in time")
    if size < int(answer.headers.get("Content-Length", "0")):  # which reading piece by piece does not look at
        raise ValueError("the answer ends in its middle")
    return b"".join(parts)


def _refusal(error: urllib.error.HTTPError, key: str) -> str:
    """Return what a refusal says of itself, without the key, which some gateways repeat."""
    if error.code in range(300, 400):
        return f" to {error.headers.get('Location', 'another address')}: name that address if it is the server's"
    try:
        said = " ".join(error.read(SAID).decode("utf-8", "replace").split())
    except (OSError, http.client.HTTPException):
        said = ""
    return f", {said.replace(key, '(the key)') if key else said}" if said else ""


def _asked_pause(error: urllib.error.HTTPError) -> float:
    try:
        asked = float(error.headers.get("Retry-After", "0"))
    except ValueError:  # a date
        return 0.0
    return min(asked, LONGEST_PAUSE) if asked > 0 else 0.0


# -- ways to ask -------------------------------------------------------------------------------------------------------


def vllm(endpoint: Endpoint, ids: Sequence[int]) -> Answer:
    """Ask for `prompt_logprobs` (vLLM): per token a table of the token itself and the most likely one."""
    body = {"prompt": list(ids), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1, "add_special_tokens": False}
    answer = endpoint.completion(body)
    found = _choice(answer).get("prompt_logprobs")
    if not isinstance(found, list):
        raise EngineError("it answers without prompt_logprobs")
    rest = len(found) - len(ids)
    tables = [
        {key: _number(one.get("logprob") if isinstance(one, dict) else one) for key, one in table.items()}
        if isinstance(table, dict)
        else {}
        for table in found
    ]
    values = [table.get(str(token)) for token, table in zip(ids, tables, strict=False)]
    return Answer(values=(*values, *[None] * rest), tops=tuple(map(_highest, tables)), by=_by(answer, ids))


def echo(endpoint: Endpoint, ids: Sequence[int], *, generated: int) -> Answer:
    """Ask for `echo` with `logprobs` (OpenAI completions): the prompt's own, then those of the `generated` tokens.

    How many of these come is settled by the probe: one entry too few would else be a prompt that was cut by a token.
    """
    body = {"prompt": list(ids), "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
    answer = endpoint.completion(body)
    found = _choice(answer).get("logprobs")
    values = found.get("token_logprobs") if isinstance(found, dict) else None
    if not isinstance(values, list):
        raise EngineError("it answers echo without token_logprobs")
    tables = found.get("top_logprobs") if isinstance(found, dict) else None
    count = len(values) - generated
    rows = tables if isinstance(tables, list) else []
    tops = [
        _highest({key: _number(one) for key, one in row.items()}) if isinstance(row, dict) else None for row in rows
    ]
    given = tuple(_number(value) for value in values[:count])
    return Answer(values=given, tops=tuple(tops[:count]), by=_by(answer, ids))


def sglang(endpoint: Endpoint, ids: Sequence[int]) -> Answer:
    """Ask SGLang's own route for `input_token_logprobs`: (log-probability, token id, text) for each token."""
    body = {
        "input_ids": list(ids),
        "sampling_params": {"max_new_tokens": 1, "temperature": 0},
        "return_logprob": True,
        "logprob_start_len": 0,
        "top_logprobs_num": 1,
    }
    meta = endpoint.generate(body).get("meta_info")
    rows, tops = (
        meta.get(name) if isinstance(meta, dict) else None for name in ("input_token_logprobs", "input_top_logprobs")
    )
    if not isinstance(rows, list) or any(not isinstance(row, list) or len(row) < 2 for row in rows):
        raise EngineError("it answers without input_token_logprobs")
    if [row[1] for row in rows] != list(ids):
        raise EngineError("its input_token_logprobs are of other tokens than were sent")
    firsts = [row[0] if isinstance(row, list) and row else None for row in (tops if isinstance(tops, list) else [])]
    return Answer(
        values=tuple(_number(row[0]) for row in rows),
        tops=tuple(_number(row[0]) if isinstance(row, list) and row else None for row in firsts),
    )


Asking = Callable[[Endpoint, Sequence[int]], Answer]
WAYS: Mapping[str, Asking] = {
    "prompt_logprobs": vllm,
    "echo": partial(echo, generated=1),
    "echo without what is generated": partial(echo, generated=0),
    "SGLang": sglang,
}


def _choice(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise EngineError("it answers without choices")
    return choices[0]


def _by(answer: Mapping[str, Any], ids: Sequence[int]) -> dict[str, str]:
    """Return who answered; `EngineError` where it says that it read another number of tokens than were sent."""
    usage = answer.get("usage")
    read = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    if isinstance(read, int) and read != len(ids):
        raise EngineError(f"it says that it read {read} tokens of the {len(ids)} that were sent")
    known = {"model": answer.get("model"), "build": answer.get("system_fingerprint")}
    return {name: said[:SAID] for name, said in known.items() if isinstance(said, str) and said}


def _highest(table: Mapping[str, float | None]) -> float | None:
    return max((value for value in table.values() if value is not None), default=None)


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return math.nan
    return number if number > NO_NUMBER else -math.inf


# -- the probe ---------------------------------------------------------------------------------------------------------


def probe(endpoint: Endpoint, prompts: Sequence[Sequence[int]]) -> tuple[str, list[Answer]]:
    """Return the way to ask (of `WAYS`) that this endpoint answers rightly, and what it answered to `prompts`.

    `prompts`: token ids, the first of each being context. Required, of every prompt: as many entries as tokens; the
    first empty; the rest finite, not above 0 and not all alike; the same when asked again and in another order; and
    each must be of its own place, which those of a shifted or stale answer are not.
    `EngineError` says what each way did wrong.
    """
    wrong = []
    for name, ask in WAYS.items():
        try:
            answers, fault = _asked(endpoint, ask, prompts)
        except EngineError as error:
            fault = str(error)
        else:
            if fault is None:
                return name, answers
        wrong.append(f"{name}: {fault}")
    raise EngineError(
        f"{endpoint.url} cannot be measured: it does not return log-probabilities of the prompt's tokens. "
        f"{'; '.join(wrong)}. vLLM and SGLang do; llama.cpp's server and "
        "llama-cpp-python's do not: measure the file itself, gguf:FILE"
    )


def _asked(endpoint: Endpoint, ask: Asking, prompts: Sequence[Sequence[int]]) -> tuple[list[Answer], str | None]:
    """Return the answers to one way of asking, and what is wrong with them, None where nothing is."""
    first = [ask(endpoint, ids) for ids in prompts]
    for ids, answer in zip(prompts, first, strict=True):
        if fault := _malformed(ids, answer.values):
            return first, fault
    again = [ask(endpoint, ids) for ids in reversed(prompts)][::-1]
    for one, two in zip(first, again, strict=True):
        if distance(one.values, two.values) > REPEATED:
            return first, "the same prompt gets other values when it is asked again in another order"
    return first, _misplaced(endpoint, ask, prompts[0], first[0])


def _malformed(ids: Sequence[int], values: Values) -> str | None:
    if len(values) != len(ids):
        return f"{len(values)} entries for {len(ids)} tokens"
    if values[0] is not None:
        return "the first token has a log-probability, though nothing stands before it: values may be one place off"
    rest = values[1:]
    if any(value is None or not math.isfinite(value) for value in rest):
        return "some entries are empty or not finite"
    numbers = [value for value in rest if value is not None]
    if any(value > 0 for value in numbers):
        return "some log-probabilities are above 0"
    if len(set(numbers)) == 1:
        return f"all entries are {numbers[0]}"
    return None


def _misplaced(endpoint: Endpoint, ask: Asking, ids: Sequence[int], answer: Answer) -> str | None:
    """Return what is wrong with the places of the values: what stands before a change must not change, the rest must.

    The last token but one is exchanged for another of the prompt. Entries before it depend on neither; its own and the
    last one's do. What was most likely in its place was so before anybody knew which token came there.
    """
    place = len(ids) - 2
    other = next((token for token in ids[1:] if token != ids[place]), None)
    if place < 2 or other is None:
        return None
    changed = ask(endpoint, [*ids[:place], other, ids[-1]])
    if distance(answer.values[:place], changed.values[:place]) > REPEATED:
        return "entries change with a token that comes after theirs: values are off by a place"
    for entry in (place, len(ids) - 1):
        before, after = answer.values[entry], changed.values[entry]
        if before is None or after is None or before == after:
            return "entries do not change with the tokens that they are of: the answer is an earlier prompt's, or off"
    tops = [one.tops[place] if len(one.tops) > place else None for one in (answer, changed)]
    if None in tops:
        return "it does not say what was most likely in each place, by which the places of its values are checked"
    if distance((tops[0],), (tops[1],)) > REPEATED:
        return "what was most likely in a place changes with the token that came there: values are off by a place"
    return None


def distance(one: Values, two: Values) -> float:
    """Return the largest difference of two answers in a place, infinite where they differ in length."""
    if len(one) != len(two):
        return math.inf
    pairs = zip(one, two, strict=True)
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)
