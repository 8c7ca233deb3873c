"""`served:URL#MODEL`: an endpoint that gives log-probabilities of a prompt's own tokens, asked by token ids.

It is probed before anything is measured (`evenbits.variants.endpoint`), and each answer must come from who answered
then. There is no KL: an endpoint names the probabilities of a few tokens, not of all.

Text form::

    served:URL["#"MODEL]      URL of the server (http://host:8000 or .../v1); MODEL as it names it, else its first one
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from evenbits.errors import EngineError, NonFiniteError, SpecError
from evenbits.records import Losses
from evenbits.variants.endpoint import KEY, WAYS, Answer, Endpoint, distance, probe
from evenbits.variants.variant import Original, Variant

if TYPE_CHECKING:
    from evenbits.scoring import HiddenStates
    from evenbits.variants.tokens import OriginalTokens

__all__ = ["Served", "parse"]

SCHEMA = 2
"""Raised whenever the same endpoint would be asked otherwise."""

CONCURRENT = 8
DRIFT = 0.5  # nats a token by which another model's answer to the probe is told from batched kernels of the same
PROBES = (
    "The quick brown fox jumps over the lazy dog, and nobody is surprised.",
    "In the year 1887 a lighthouse keeper wrote down what the sea had brought.",
    "Kein Mensch weiß genau, wie viele Züge nachts durch dieses Tal fahren.",
)


def parse(text: str) -> Served:
    """Return the endpoint that `text` names; `SpecError` where it is no URL."""
    url, _, model = text.removeprefix("served:").partition("#")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        usable = usable and url.isprintable() and " " not in url
    except ValueError:  # half an IPv6 address, a port beyond 65535
        usable = False
    if not usable:
        raise SpecError(f"spec {text!r}: write served:http://HOST:PORT#MODEL")
    if parts.username or parts.password:
        raise SpecError(f"a spec is written into reports: put a key into {KEY}, not into the URL")
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
        key = {"served": self.url, "schema": SCHEMA, **endpoint.identity(), **probed.key()}

        @contextmanager
        def runs(opened: Original) -> Iterator[_ServedScorer]:
            from evenbits.variants.tokens import OriginalTokens

            yield _ServedScorer(self, endpoint, probed, OriginalTokens.of(opened))

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
        by = _probed(self, endpoint, original).answers[0].by
        return {
            "engine": "endpoint",
            **({"answers_as": by["model"]} if by.get("model", endpoint.model) != endpoint.model else {}),
            **({"build": by["build"]} if "build" in by else {}),
            **endpoint.identity(),
            "no_kl": "an endpoint gives no full distributions",
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Probed:
    """What was found of an endpoint: the `way` to ask, of `WAYS`, and the `answers` to `prompts`."""

    way: str
    prompts: tuple[tuple[int, ...], ...]
    answers: tuple[Answer, ...]

    def key(self) -> dict[str, Any]:
        """Return what identifies who answered: the log-probability of each text to a tenth of a nat, and its name."""
        sums = [sum(value for value in answer.values if value is not None) for answer in self.answers]
        return {"way": self.way, "probe": [round(value, 1) for value in sums], "by": dict(self.answers[0].by)}


_PROBES: dict[tuple[str, str], _Probed] = {}
"""What was found in this process, by spec and original."""


def _probed(spec: Served, endpoint: Endpoint, original: Original) -> _Probed:
    place = (str(spec), original.local.fingerprint)
    if place not in _PROBES:
        from evenbits.variants.tokens import OriginalTokens

        ours = OriginalTokens.of(original)
        names = [str(number) for number in range(len(PROBES))]
        prompts = tuple((ours.prefix, *ids) for ids in ours.tokens("the probe", names, PROBES))
        way, answers = probe(endpoint, prompts)
        _PROBES[place] = _Probed(way=way, prompts=prompts, answers=tuple(answers))
    return _PROBES[place]


class _ServedScorer:
    """Scores by the original's token ids; several windows are asked for at once."""

    def __init__(self, spec: Served, endpoint: Endpoint, probed: _Probed, ours: OriginalTokens) -> None:
        self._spec, self._endpoint, self._probed, self._ours = spec, endpoint, probed, ours

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
            answers = list(pool.map(self._ask, prompts))
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
        self._check_unchanged()
        ends = np.cumsum(counts)
        return Losses(
            language=language,
            segment_ids=tuple(segment_ids),
            nll=np.add.reduceat(nll_N, ends - counts) if len(counts) else nll_N,
            tokens=counts,
            utf8_bytes=np.asarray([len(text.encode("utf-8")) for text in texts], dtype=np.int64),
            no_divergence="no KL: an endpoint gives no full distributions",
        ), None

    def _ask(self, prompt: Sequence[int]) -> Answer:
        answer = WAYS[self._probed.way](self._endpoint, prompt)
        known = self._probed.answers[0].by
        if answer.by != known:
            raise EngineError(f"{self._spec}: {_said(answer.by)} answered, where {_said(known)} did before")
        return answer

    def _check_unchanged(self) -> None:
        """Raise `EngineError` where the first text of the probe is answered otherwise than before the language."""
        now = self._ask(self._probed.prompts[0])
        if distance(now.values, self._probed.answers[0].values) > DRIFT:
            raise EngineError(
                f"{self._spec}: it answers otherwise than when it was probed, so that another model stands behind the "
                "name now; measure again when it stays"
            )


def _said(by: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {said!r}" for name, said in by.items()) or "nobody by name"
