"""The order in which evals run: H-037, H-036, H-035, H-038, H-039, then the others.

Later hypotheses use earlier measurements from the store. Evals of one model stay together, so that each model is
loaded once; evals over several models come last, when every model has been measured. Tests that are no evals keep
their places.
"""

from __future__ import annotations

import pytest

from harness.report.verdicts import rank
from plugins.items import identity

__all__: list[str] = []


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = [place for place, item in enumerate(items) if identity(item) is not None]
    evals = [items[place] for place in places]
    models: dict[str | None, int] = {}
    for item in evals:
        models.setdefault(_model(item), len(models))
    models[None] = len(models)
    ordered = sorted(evals, key=lambda item: (models[_model(item)], _rank(item)))  # stable: file order within
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


def _model(item: pytest.Item) -> str | None:
    who = identity(item)
    return None if who is None else who.model


def _rank(item: pytest.Item) -> tuple[int, str]:
    who = identity(item)
    return (99, "") if who is None else rank(who.hypothesis)
