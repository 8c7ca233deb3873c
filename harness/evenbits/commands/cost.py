"""How the commands say what measuring would take (`--cost`)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evenbits.cells import Subject
    from evenbits.records import Corpus
    from evenbits.studies.cost import Load
    from evenbits.studies.study import Wants

__all__ = ["say_cost", "say_cost_of"]

Work = dict[Hashable, "Load"]


def say_cost(wanted: Sequence[tuple[Subject, Sequence[Wants], Corpus | None]], *, as_json: bool) -> None:
    """Print what measuring would take of each model: what is wanted, and the text that its passes are counted over."""
    from evenbits.cells import runner
    from evenbits.cells.streaming import Streamed
    from evenbits.studies.cost import lacking

    loads: list[tuple[Subject, Work, Corpus | None]] = []
    for subject, several, text in wanted:
        found: Work = {}
        for wants in several:
            if isinstance(subject.runner, Streamed):  # else it would be refused only when it is measured
                subject.runner.refuse(subject, runner.lacking(subject.store, wants.cells))
            found |= lacking(wants, subject.store)
        loads.append((subject, found, text))
    say_cost_of(loads, as_json=as_json)


def say_cost_of(loads: Sequence[tuple[Subject, Work, Corpus | None]], *, as_json: bool) -> None:
    """Print the cost of work of each model."""
    from evenbits.cells.cluster import Cluster
    from evenbits.commands.console import say, say_json
    from evenbits.studies.cost import costs_of

    found = costs_of((subject, work.values(), text) for subject, work, text in loads)
    costs = {subject.local.text: cost for (subject, _, _), cost in zip(loads, found, strict=True)}
    if as_json:
        say_json({"cost": {model: cost.to_json() for model, cost in costs.items()}})
        return
    shared = any(isinstance(subject.runner, Cluster) for subject, _, _ in loads)
    rest = ", for what is not stored yet" + ("; the time is that of one worker" if shared else "")
    for model, cost in costs.items():
        say(f"{model}: {cost.sentence()}{rest if cost.seconds else ''}")
