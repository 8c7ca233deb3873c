"""What a run takes of the evals that were collected, and what it leaves out: said beforehand and in the report.

By default it takes criterion, prediction, and of the robustness tests those without which a verdict cannot be read
(`robustness(always=...)`); --robustness takes the rest. A family (`--family NAME`) has eval modules, models in focus
and tests that cost too much for a first look. --full takes everything, and so does naming a test (FILE::TEST).
"""

from __future__ import annotations

from collections import Counter

import pytest
from evenbits.errors import EvenbitsError
from evenbits.families import Family

from .items import Identity, catalogue, identity
from .options import Settings, settings

__all__: list[str] = []


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what the family is and how much of the text it takes."""
    asked = _settings(config)
    chosen = None if asked is None else asked.family
    if asked is None or chosen is None:
        return []
    whole = asked.full or "segments" in asked.typed
    notes = [] if whole else [chosen.left_out()]
    focus = [chosen.in_focus()] if _focused(asked, chosen) else []
    dear = [chosen.dear()] if chosen.without and not asked.full else []
    return [chosen.summary(), *notes, *focus, *dear]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what was not asked for; after -k and -m have chosen, so that the report names nothing they left out."""
    asked = _settings(config)
    if asked is None:
        return
    reasons: dict[pytest.Item, str] = {}
    counts: Counter[str] = Counter()
    for item in items:
        who = identity(item)
        if who is None:
            continue
        why = None if asked.full else _spared(item, who, asked)
        if why is not None:
            reasons[item] = why
            counts[why] += 1
        elif len(asked.specs) > 1 and "first_grid" in getattr(item, "fixturenames", ()):
            counts[f"{who.hypothesis}: models are compared under the first --spec alone"] += len(asked.specs) - 1
    if reasons:
        config.hook.pytest_deselected(items=list(reasons))
        items[:] = [item for item in items if item not in reasons]
    catalogue(config).left_out.update(counts)


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Say what was left out, and how to get it."""
    return [f"left out: {count} x {reason}" for reason, count in sorted(catalogue(config).left_out.items())]


def _spared(item: pytest.Item, who: Identity, asked: Settings) -> str | None:
    """Return why an eval is left out, in words for the report; None where it runs."""
    arguments = item.config.args
    function = getattr(item, "originalname", item.name)
    if function in {argument.rpartition("::")[2].partition("[")[0] for argument in arguments if "::" in argument}:
        return None
    chosen = asked.family
    if chosen is not None:
        if chosen.tests and item.path.name not in chosen.tests and not any(".py" in one for one in arguments):
            return f"{who.hypothesis}: family {chosen.name} does not run it (name its file, or --full)"
        if _focused(asked, chosen) and _beside(item, chosen):
            return f"{who.hypothesis}: a model out of the focus of family {chosen.name} (--full)"
        if function in chosen.without:
            return f"{who.hypothesis}: costs much for family {chosen.name} (--full)"
    mark = item.get_closest_marker("robustness")
    if mark is None or "always" in mark.kwargs or asked.robustness or "robustness" in item.config.option.markexpr:
        return None
    return f"{who.hypothesis}: robustness (--robustness)"


def _focused(asked: Settings, chosen: Family) -> bool:
    """Whether evals of a single model are kept to the family's focus: models named by the user are all measured."""
    return bool(chosen.focus) and not asked.full and "model" not in asked.typed


def _beside(item: pytest.Item, chosen: Family) -> bool:
    params: dict[str, object] = getattr(getattr(item, "callspec", None), "params", {})
    return "model" in params and getattr(params["model"], "text", None) not in chosen.focus


def _settings(config: pytest.Config) -> Settings | None:
    try:
        return settings(config)
    except EvenbitsError:
        return None  # said elsewhere, with exit code 2
