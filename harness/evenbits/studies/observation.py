"""An observation: passes over text that are no scoring. What it takes is counted before it is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from evenbits.cells import Subject
from evenbits.models.blueprint import Blueprint, blueprint
from evenbits.models.records import OnDemand
from evenbits.observe.activations.lookup import (
    GRADIENT_SEGMENTS,
    GRADIENTS,
    HELD_BYTES,
    KIND,
    PEAK_TEXTS,
    PEAKS,
    activation_key,
    activations,
    gradient_key,
    peak_key,
)
from evenbits.observe.activations.statistics import state_layers
from evenbits.records import Corpus
from evenbits.store import Store
from evenbits.variants.quantization.spec import QuantSpec
from evenbits.variants.registry import Spec

__all__ = ["BACKWARD", "Observation", "activations_of", "linear_weights", "statistics_for"]

ACTIVATIONS = 1.5
"""Passes of scoring that statistics of activations cost: no head, and sums over every input."""

BACKWARD = 3.0
"""The same of a gradient: a backward pass is two forward ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """Passes over text that are no scoring: activations, gradients; or scoring of what is chosen only on the way.

    `passes`: in passes of scoring over all of `corpus`; `what` names them. `alone`: whether segments are read one by
    one. `rounds`: how often all weights are rounded for it. `disk_bytes`: what the store keeps of a language;
    `held_bytes`: held beside the model meanwhile. `dtype`: None for the run's. `stored(store, language)`: whether a
    store has it of a language; None where only measuring tells. `measure(languages=...)`: measures it into the
    subject's store; None where that is left to who uses it.
    """

    what: str
    corpus: Corpus
    passes: float
    alone: bool = False
    rounds: float = 0.0
    disk_bytes: float = 0.0
    held_bytes: float = 0.0
    dtype: str | None = None
    stored: Callable[[Store, str], bool] | None = None
    measure: Callable[..., object] | None = None

    def has(self, store: Store, language: str) -> bool:
        """Return whether `store` has it of a language; False where it cannot be told."""
        return self.stored is not None and self.stored(store, language)


def activations_of(subject: Subject, corpus: Corpus) -> Observation:
    """Return what statistics of activations on `corpus` take, in the run's dtype."""
    model = subject.on_demand()
    measure = partial(activations, model, corpus, store=subject.store, progress=subject.progress)
    return _activations(subject, model, corpus, None, measure)


def statistics_for(subject: Subject, specs: Sequence[Spec]) -> tuple[Observation, ...]:
    """Return what is measured on the subject's probe text before weights can be chosen as `specs` say."""
    found = (one for spec in specs if isinstance(spec, QuantSpec) for one in _needed(subject, spec))
    return tuple({(one.what, one.corpus.digest, one.corpus.languages, one.dtype): one for one in found}.values())


def linear_weights(drawn: Blueprint) -> int:
    """Return how many weights the products inside the layers have."""
    return sum(math.prod(drawn.shapes[linear.name]) for linear in drawn.anatomy.linears)


def _needed(subject: Subject, spec: QuantSpec) -> Iterator[Observation]:
    if subject.probe is None or not spec.needs:
        return
    dtype = "float32" if spec.needs_float32 else None
    model = subject.on_demand()
    if dtype is not None:
        model = OnDemand(local=model.local, arithmetic=subject.device.arithmetic("torch.float32"), loader=model.loader)
    if spec.keep is not None and spec.keep.criterion == "activation":
        yield _activations(subject, model, _part(subject.probe, spec.keep.languages), dtype)
    if spec.keep is not None and spec.keep.criterion == "sensitivity":
        yield _gradients(subject, model, _part(subject.probe, spec.keep.languages), dtype)
    if spec.keep is not None and spec.keep.criterion == "superweight":
        yield _peaks(subject, model, subject.probe, dtype)
    if spec.clip is not None and spec.clip.languages:
        yield _activations(subject, model, _part(subject.probe, spec.clip.languages), dtype)


def _part(probe: Corpus, languages: Sequence[str]) -> Corpus:
    """Return the text of the languages whose statistics decide; none named are all."""
    return probe.select(languages=tuple(tag for tag in probe.languages if tag in languages)) if languages else probe


def _activations(
    subject: Subject,
    model: OnDemand,
    corpus: Corpus,
    dtype: str | None,
    measure: Callable[..., object] | None = None,
) -> Observation:
    drawn = blueprint(subject.local, store=subject.store)
    width = drawn.shapes[drawn.anatomy.embedding][1]
    read: dict[tuple[int | None, str, bool], int] = {}  # query, key and value read the same, which is written once
    for linear in drawn.anatomy.linears:
        block = None if linear.layer is None else drawn.anatomy.blocks[linear.layer]
        writes = block is not None and linear.name in {block.attention_output, block.mlp_output}
        read[linear.layer, linear.part, writes] = max(1, linear.experts) * drawn.shapes[linear.name][1]
    layers = len(drawn.anatomy.layers)
    channels = 2 * sum(read.values()) + width * layers  # mean square and peak; peaks of what leaves

    def stored(store: Store, tag: str) -> bool:
        return store.has(KIND, activation_key(model, corpus.texts[tag]))

    return Observation(
        what="activations",
        corpus=corpus,
        passes=ACTIVATIONS,
        disk_bytes=8 * channels + 4 * len(state_layers(layers)) * len(corpus) * width,
        dtype=dtype,
        stored=stored,
        measure=measure,
    )


def _gradients(subject: Subject, model: OnDemand, probe: Corpus, dtype: str | None) -> Observation:
    """Return what mean squared gradients take: one number for each weight, whatever the number of languages."""
    few = probe.select(indices=tuple(range(min(len(probe), GRADIENT_SEGMENTS))))
    size = 4 * linear_weights(blueprint(subject.local, store=subject.store))
    key = gradient_key(model, few.texts.values())
    return Observation(
        what="gradients",
        corpus=few,
        passes=BACKWARD * max(1, math.ceil(2 * size / HELD_BYTES)),  # a large model takes a round for each part
        alone=True,
        disk_bytes=size / len(few.languages),
        held_bytes=min(2 * size, HELD_BYTES),
        dtype=dtype,
        stored=lambda store, _tag: store.held(GRADIENTS, key) is not None,
    )


def _peaks(subject: Subject, model: OnDemand, probe: Corpus, dtype: str | None) -> Observation:
    first = probe.select(indices=tuple(range(min(len(probe), PEAK_TEXTS))))
    drawn = blueprint(subject.local, store=subject.store)
    channels = sum(sum(drawn.shapes[linear.name]) for linear in drawn.anatomy.linears)
    key = peak_key(model, [text for tag in first.languages for text in first.texts[tag]])
    return Observation(
        what="peaks",
        corpus=first,
        passes=1.0,
        disk_bytes=8 * channels / len(first.languages),
        dtype=dtype,
        stored=lambda store, _tag: store.has(PEAKS, key),
    )
