"""A study: what a hypothesis wants measured of a model, what is measured, and how its data is shown.

Each folder here that has a `STUDY` is one. Its judgements are pure functions of what was measured, which evals hold
against thresholds; a new hypothesis is a folder, an eval module and their tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import evenbits.studies
from evenbits.cells import Cell, Subject
from evenbits.figure import Case, Figure
from evenbits.observe.activations.lookup import KIND as ACTIVATION_KIND
from evenbits.observe.activations.lookup import activation_key, activations
from evenbits.records import Corpus
from evenbits.store import Store
from evenbits.variants.registry import Spec

__all__ = ["Drawing", "Inputs", "Maker", "Observation", "Study", "Wants", "activations_on", "studies"]

Maker = Callable[[Mapping[str, Any], Mapping[str, Any]], "Case | None"]
"""Makes a case of one measurement row, given what is known of each language by tag; None where it has no such data."""


ACTIVATIONS = 1.5
"""Passes of scoring that statistics of activations cost: no head, and sums over every input."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What a study is given: a model, what `--spec` names, both halves of the text, and each language's resource level.

    `specs`: all of the run. `seed`: of every random choice.
    """

    subject: Subject
    spec: Spec
    corpus: Corpus
    probe: Corpus
    tier: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """Passes over text that are no scoring: activations, gradients; or scoring of what is chosen only on the way.

    `passes`: in passes of scoring over all of `corpus`; `what` names them. `stored(store, language)`: whether
    a store has it of a language; None where only measuring tells. `measure(languages=...)`: measures it into the
    subject's store; None where only the study itself knows how.
    """

    what: str
    corpus: Corpus
    passes: float
    stored: Callable[[Store, str], bool] | None = None
    measure: Callable[..., object] | None = None

    def has(self, store: Store, language: str) -> bool:
        """Return whether `store` has it of a language; False where it cannot be told."""
        return self.stored is not None and self.stored(store, language)


def activations_on(given: Inputs, corpus: Corpus) -> Observation:
    """Return what statistics of activations on `corpus` take."""
    model = given.subject.on_demand()

    def stored(store: Store, tag: str) -> bool:
        return store.has(ACTIVATION_KIND, activation_key(model, corpus.texts[tag]))

    measure = partial(activations, model, corpus, store=given.subject.store, progress=given.subject.progress)
    return Observation(what="activations", corpus=corpus, passes=ACTIVATIONS, stored=stored, measure=measure)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wants:
    """What one part of a study takes of a model before it can be judged."""

    cells: tuple[Cell, ...] = ()
    observations: tuple[Observation, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """A figure of the report with what makes its cases; `place` orders the figures of a page."""

    place: int
    figure: Figure
    make: Maker


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A hypothesis, or a group of findings.

    `claims`: name of a hypothesis -> what it says, in a line. `place`: order of execution and of the report; None for
    groups that stand after the hypotheses. `wants`: name of the fixture that measures a part -> what that takes; so the
    cost of a run is counted before it starts. `measure`: what the fixture `measured` gives evals of this hypothesis.
    """

    claims: Mapping[str, str]
    place: int | None = None
    wants: Mapping[str, Callable[[Inputs], Wants]] = field(default_factory=dict)
    measure: Callable[[Inputs], Any] | None = None
    drawings: Sequence[Drawing] = ()


@cache
def studies() -> tuple[Study, ...]:
    """Return the studies of this package: hypotheses in order of execution, then groups by the name of their folder."""
    found = list(_declared())
    return tuple(sorted(found, key=lambda one: (one.place is None, one.place)))


def _declared() -> Iterator[Study]:
    for module in sorted(iter_modules(evenbits.studies.__path__), key=lambda one: one.name):
        if module.ispkg:
            declared = getattr(import_module(f"{evenbits.studies.__name__}.{module.name}"), "STUDY", None)
            if isinstance(declared, Study):
                yield declared
