"""A study: what a hypothesis wants measured of a model, what is measured, and how its data is shown.

Each folder here that has a `STUDY` is one. Its judgements are pure functions of what was measured, which evals hold
against thresholds; a new hypothesis is a folder, an eval module and their tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import evenbits.studies
from evenbits.cells import Cell, Subject, damage_cells
from evenbits.figure import Case, Figure
from evenbits.records import Corpus
from evenbits.studies.observation import Observation, activations_of, statistics_for
from evenbits.variants.registry import Spec

__all__ = [
    "Drawing",
    "Inputs",
    "Maker",
    "Observation",
    "Study",
    "Wants",
    "activations_on",
    "as_stored",
    "damage_of",
    "studies",
]

Maker = Callable[[Mapping[str, Any], Mapping[str, Any]], "Case | None"]
"""Makes a case of one measurement row, given what is known of each language by tag; None where it has no such data."""


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
class Wants:
    """What one part of a study takes of a model before it can be judged.

    `weighed`: the model whose weights' statistics are taken, None where nobody asks for them.
    """

    cells: tuple[Cell, ...] = ()
    observations: tuple[Observation, ...] = ()
    weighed: Subject | None = None


def activations_on(given: Inputs, corpus: Corpus) -> Observation:
    """Return what statistics of activations on `corpus` take."""
    return activations_of(given.subject, corpus)


def damage_of(subject: Subject, specs: Sequence[Spec], corpus: Corpus) -> Wants:
    """Return what damage under `specs` takes: cells, and what specs have to know of the probe text."""
    return Wants(cells=damage_cells(subject, specs, corpus), observations=statistics_for(subject, specs))


def as_stored(subject: Subject) -> Subject:
    """Return the subject as the store knows it: what would have to be computed raises `GapError`.

    What is chosen only on the way is so known once that has been gone.
    """
    known = copy(subject.store)
    known.sealed = True
    return replace(subject, store=known)


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
