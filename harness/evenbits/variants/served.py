"""`served:URL#MODEL`: an endpoint that gives log-probabilities of a prompt's own tokens, asked by token ids.

Servers answer such questions wrongly in ways that look right: with generated tokens only, zeros, values moved by one
place (as llama-cpp-python's does where no BOS is added), or those of an earlier prompt from a cache. So before anything
is measured the endpoint is probed, and one that fails is refused with what it did. There is no KL: an endpoint names
the probabilities of a few tokens, not of all.

Text form::

    served:URL["#"MODEL]      URL of the server (http://host:8000 or .../v1); MODEL as it names it, else its first one
"""

from __future__ import annotations

import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from evenbits.errors import EngineError, NonFiniteError, SpecError
from evenbits.records import Losses
from evenbits.variants.variant import Original, Variant

if TYPE_CHECKING:
    from evenbits.scoring import HiddenStates
    from evenbits.variants.tokens import OriginalTokens

__all__ = ["Endpoint", "Served", "parse", "probe"]

SCHEMA = 1
"""Raised whenever the same endpoint would be asked otherwise."""

LARGEST = 1 << 28  # bytes of an answer; log-probabilities of a long window take some thousands

TIMEOUT = 300.0  # seconds; a cold server compiles at its first request
TRIES = 4
SAID = 200  # bytes of a refusal that are shown
CONCURRENT = 8
REPEATED = 1e-3  # nats a token; batched kernels do not repeat themselves bit for bit
PROBES = (
    "The quick brown fox jumps over the lazy dog, and nobody is surprised.",
    "In the year 1887 a lighthouse keeper wrote down what the sea had brought.",
    "Kein Mensch weiß genau, wie viele Züge nachts durch dieses Tal fahren.",
)

Values = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Log-probabilities by token of a prompt: `values` of the token itself, `tops` of the most likely one there.

    `build`: engine and version, where the server says them (OpenAI's `system_fingerprint`).
    """

    values: Values
    tops: Values
    build: str | None = None


def parse(text: str) -> Served:
    """Return the endpoint that `text` names; `SpecError` where it is no URL."""
    url, _, model = text.removeprefix("served:").partition("#")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # half an IPv6 address, a port beyond 65535
        usable = False
    if not usable:
        raise SpecError(f"spec {text!r}: write served:http://HOST:PORT#MODEL")
    if parts.username or parts.password:
        raise SpecError("a spec is written into reports: put a key into EVENBITS_SERVED_KEY, not into the URL")
    return Served(url=url.rstrip("/"), model=model or None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """`url` of the server, `model` as it names it (None: the first that it lists)."""

    url: str
    model: str | None = None

    def __str__(self) -> str:
        return f"served:{self.url}{f'#{self.model}' if self.model else ''}"

    def variant(self, original: Original) -> Variant:
        """Return the endpoint, probed: `EngineError` where it cannot be trusted.

        Its key holds what the server says of itself and what it answered to the probe, so that another model behind the
        same name is another one, and another version of the engine, too.
        """
        endpoint = self.endpoint()
        probed = _probed(self, endpoint, original)
        key = {"served": self.url, "schema": SCHEMA, **endpoint.identity(), **probed}

        @contextmanager
        def runs(opened: Original) -> Iterator[_ServedScorer]:
            from evenbits.variants.tokens import OriginalTokens

            yield _ServedScorer(endpoint, WAYS[probed["way"]], OriginalTokens.of(opened))

        return Variant(label=str(self), key=key, runs=runs, divergence=False)

    def endpoint(self) -> Endpoint:
        """Return the endpoint with the model that it serves; `EngineError` where nobody answers."""
        bare = Endpoint(url=self.url, model="")
        listed = bare.models()
        if not listed:
            raise EngineError(f"{self}: the server lists no model at {self.url}; is it the right address?")
        names = [str(entry.get("id")) for entry in listed]
        chosen = self.model or names[0]
        if chosen not in names:
            raise EngineError(f"{self}: the server has no model {chosen!r}; it lists {', '.join(names)}")
        return Endpoint(url=self.url, model=chosen, described=listed[names.index(chosen)])

    def bits_per_weight(self, original: Original) -> float | None:
        """Return None: an endpoint does not say what it holds."""
        del original
        return None

    def facts(self, original: Original) -> Mapping[str, Any]:
        """Return what the server says of itself, and why there is no KL."""
        endpoint = self.endpoint()
        build = _probed(self, endpoint, original)["build"]
        said = {"build": build} if build else {}
        return {"engine": "endpoint", **said, **endpoint.identity(), "no_kl": "an endpoint gives no full distributions"}


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
        import os

        address = (base if base is not None else self.url if self.url.endswith("/v1") else f"{self.url}/v1") + path
        headers = {"Content-Type": "application/json", "Cache-Control": "no-cache"}
        if key := os.environ.get("EVENBITS_SERVED_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data=data, headers=headers)  # noqa: S310 - http or https, see parse
        for attempt in range(1, TRIES + 1):
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:  # noqa: S310 - same
                    found = json.loads(answer.read(LARGEST))
            except urllib.error.HTTPError as error:
                said = " ".join(error.read(SAID).decode("utf-8", "replace").split())
                last = f"HTTP {error.code}{f', {said}' if said else ''}"
                if error.code < 500 and error.code != 429:
                    raise EngineError(f"{address} answered {last}") from None
            except (OSError, ValueError, RecursionError) as error:
                last = str(error) or type(error).__name__
            else:
                if isinstance(found, dict):
                    return found
                last = "an answer that is no JSON object"
            if attempt < TRIES:
                time.sleep(self.pause * 2 ** (attempt - 1))
        raise EngineError(
            f"{address} gave no answer in {TRIES} tries: {last}. Is the server up, and the address right?"
        )


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
    return Answer(values=(*values, *[None] * rest), tops=tuple(map(_highest, tables)), build=_build(answer))


def echo(endpoint: Endpoint, ids: Sequence[int]) -> Answer:
    """Ask for `echo` with `logprobs` (OpenAI completions): the prompt's own, then the one generated token's."""
    body = {"prompt": list(ids), "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
    answer = endpoint.completion(body)
    found = _choice(answer).get("logprobs")
    values = found.get("token_logprobs") if isinstance(found, dict) else None
    if not isinstance(values, list):
        raise EngineError("it answers echo without token_logprobs")
    tables = found.get("top_logprobs") if isinstance(found, dict) else None
    count = len(values) - 1 if len(values) == len(ids) + 1 else len(values)  # less the token that had to be generated
    rows = tables if isinstance(tables, list) else []
    tops = [
        _highest({key: _number(one) for key, one in row.items()}) if isinstance(row, dict) else None for row in rows
    ]
    given = tuple(_number(value) for value in values[:count])
    return Answer(values=given, tops=tuple(tops[:count]), build=_build(answer))


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


def _highest(table: Mapping[str, float | None]) -> float | None:
    return max((value for value in table.values() if value is not None), default=None)


Asking = Callable[[Endpoint, Sequence[int]], Answer]
WAYS: Mapping[str, Asking] = {"prompt_logprobs": vllm, "echo": echo, "SGLang": sglang}


_PROBES: dict[tuple[str, str], dict[str, Any]] = {}
"""What was found of an endpoint in this process, by spec and original."""


def _probed(spec: Served, endpoint: Endpoint, original: Original) -> dict[str, Any]:
    """Return the `way` to ask, the log-probability of each `probe` text to a tenth of a nat, and the `build`."""
    place = (str(spec), original.local.fingerprint)
    if place not in _PROBES:
        from evenbits.variants.tokens import OriginalTokens

        ours = OriginalTokens.of(original)
        names = [str(number) for number in range(len(PROBES))]
        prompts = [[ours.prefix, *ids] for ids in ours.tokens("the probe", names, PROBES)]
        way = probe(endpoint, prompts)
        answers = [WAYS[way](endpoint, ids) for ids in prompts]
        sums = [sum(value for value in answer.values if value is not None) for answer in answers]
        _PROBES[place] = {"way": way, "probe": [round(value, 1) for value in sums], "build": answers[0].build}
    return _PROBES[place]


def probe(endpoint: Endpoint, prompts: Sequence[Sequence[int]]) -> str:
    """Return the way to ask (of `WAYS`) that this endpoint answers rightly.

    `prompts`: token ids, the first of each being context. Required, of every prompt: as many entries as tokens; the
    first empty; the rest finite, not above 0 and not all alike; the same when asked again and in another order; and
    each must be of its own place, which those of a shifted or stale answer are not.
    `EngineError` says what each way did wrong.
    """
    wrong = []
    for name, ask in WAYS.items():
        try:
            fault = _fault(endpoint, ask, prompts)
        except EngineError as error:
            fault = str(error)
        if fault is None:
            return name
        wrong.append(f"{name}: {fault}")
    raise EngineError(
        f"{endpoint.url} cannot be measured: it does not return log-probabilities of the prompt's tokens. "
        f"{'; '.join(wrong)}. vLLM and SGLang do; llama.cpp's server and "
        "llama-cpp-python's do not: measure the file itself, gguf:FILE"
    )


def _fault(endpoint: Endpoint, ask: Asking, prompts: Sequence[Sequence[int]]) -> str | None:
    """Return what is wrong with the answers of one way of asking, None where nothing is."""
    first = [ask(endpoint, ids) for ids in prompts]
    for ids, answer in zip(prompts, first, strict=True):
        if fault := _malformed(ids, answer.values):
            return fault
    again = [ask(endpoint, ids) for ids in reversed(prompts)][::-1]
    for one, two in zip(first, again, strict=True):
        if _distance(one.values, two.values) > REPEATED:
            return "the same prompt gets other values when it is asked again in another order"
    return _misplaced(endpoint, ask, prompts[0], first[0])


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
    if _distance(answer.values[:place], changed.values[:place]) > REPEATED:
        return "entries change with a token that comes after theirs: values are off by a place"
    for entry in (place, len(ids) - 1):
        before, after = answer.values[entry], changed.values[entry]
        if before is None or after is None or before == after:
            return "entries do not change with the tokens that they are of: the answer is an earlier prompt's, or off"
    tops = [one.tops[place] if len(one.tops) > place else None for one in (answer, changed)]
    if None in tops:
        return "it does not say what was most likely in each place, by which the places of its values are checked"
    if _distance((tops[0],), (tops[1],)) > REPEATED:
        return "what was most likely in a place changes with the token that came there: values are off by a place"
    return None


def _distance(one: Values, two: Values) -> float:
    if len(one) != len(two):
        return math.inf
    pairs = zip(one, two, strict=True)
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)


def _choice(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise EngineError("it answers without choices")
    return choices[0]


def _build(answer: Mapping[str, Any]) -> str | None:
    found = answer.get("system_fingerprint")
    return found[:SAID] if isinstance(found, str) and found else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


class _ServedScorer:
    """Scores by the original's token ids; several windows are asked for at once."""

    def __init__(self, endpoint: Endpoint, ask: Asking, ours: OriginalTokens) -> None:
        self._endpoint, self._ask, self._ours = endpoint, ask, ours

    @property
    def arithmetic(self) -> str:
        """Whose it is: an endpoint does not say how it computes."""
        return f"that of {self._endpoint.model} at {self._endpoint.url}"

    def score(
        self,
        language: str,
        segment_ids: Sequence[str],
        texts: Sequence[str],
        *,
        reference: HiddenStates | None = None,
        keep_hidden: bool = False,
        small_batches: bool = False,
    ) -> tuple[Losses, HiddenStates | None]:
        """Return the losses: nats per whole segment, in the windows that the original is scored in."""
        from evenbits.scoring.batches import windows_of

        del reference, keep_hidden, small_batches
        tokens = self._ours.tokens(language, segment_ids, texts)
        windows = windows_of(tokens, prefix=self._ours.prefix, context=self._ours.context)
        prompts = [(*window.inputs, window.targets[-1]) for window in windows]
        self._endpoint.check_room(max(map(len, prompts), default=0), language)
        with ThreadPoolExecutor(CONCURRENT) as pool:
            answers = list(pool.map(lambda prompt: self._ask(self._endpoint, prompt), prompts))
        counts = np.asarray([len(ids) for ids in tokens], dtype=np.int64)
        nll_N = np.full(int(counts.sum()), np.nan)
        for window, answer in zip(windows, answers, strict=True):
            count, values = len(window.targets), answer.values
            found = values[-count:]
            if len(values) != len(window.inputs) + 1 or any(value is None for value in found):
                raise EngineError(
                    f"{self._endpoint.url}: {len(values)} log-probabilities for {len(window.inputs) + 1} tokens in "
                    f"{language}, though it passed the probe; is the text longer than the server takes?"
                )
            nll_N[window.start : window.start + count] = [-value for value in found if value is not None]
        if not np.isfinite(nll_N).all():
            raise NonFiniteError(f"{self._endpoint.url}: a log-probability in {language} is not finite")
        ends = np.cumsum(counts)
        return Losses(
            language=language,
            segment_ids=tuple(segment_ids),
            nll=np.add.reduceat(nll_N, ends - counts) if len(counts) else nll_N,
            tokens=counts,
            utf8_bytes=np.asarray([len(text.encode("utf-8")) for text in texts], dtype=np.int64),
            no_divergence="no KL: an endpoint gives no full distributions",
        ), None
