"""The order in which evals run: H-037, H-036, H-035, H-038, H-039, then the others; and on which worker.

Later hypotheses use earlier measurements from the store. Evals of one model stay together, so that each model is
loaded once; evals over several models come last: all that they want of a model is measured at its first visit, in which
workers of pytest-xdist take turns (`fixtures/models.py`). Tests that are no evals keep their places.
"""

from __future__ import annotations

from typing import Any

import pytest
from evenbits.report.verdicts import rank

from .items import catalogue, identity

__all__: list[str] = []


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """Under `--dist loadgroup`, give all evals of one model to one worker, so that each model is loaded once.

    The groups come from what the workers say they collected, not from `xdist_group` marks: those travel as a suffix of
    the test's id, which pytest 9.2 no longer lets a plugin write. A group that a test has by itself is kept.
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling

    class ByModel(LoadGroupScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            given: str = super()._split_scope(nodeid)
            who = catalogue(config).items.get(nodeid)
            return given if given != nodeid or who is None or who.model is None else f"model {who.model}"

        def remove_node(self, node: Any) -> str | None:
            """Return the test at which a worker died, which is not run again, and give its others away.

            xdist 3.8 hands it to the next worker, and the next, and waits for ever where it was the last of a group
            (its issues 1323, 1327 and 1378).
            """
            workload: dict[str, dict[str, bool]] = self.assigned_work.pop(node)
            left = [(tests, nodeid) for tests in workload.values() for nodeid, done in tests.items() if not done]
            if not left:
                return None
            tests, crashed = left[0]
            tests[crashed] = True
            self.workqueue.update({scope: tests for scope, tests in workload.items() if not all(tests.values())})
            for other in self.assigned_work:
                self._reschedule(other)
            return crashed

        def schedule(self) -> None:
            """Hand out the first groups; where none is left, workers need not wait for a second one."""
            super().schedule()
            if not self.workqueue:
                for node in self.nodes:
                    node.shutdown()

    return ByModel(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = [place for place, item in enumerate(items) if identity(item) is not None]
    evals = [items[place] for place in places]
    models: dict[str | None, int] = {}
    for item in evals:
        models.setdefault(_model(item), len(models))
    over_models = [item for item in evals if _model(item) is None and "models" in getattr(item, "fixturenames", ())]
    ordered = sorted(  # stable: file order within
        evals, key=lambda item: (item in over_models, models[_model(item)], _rank(item))
    )
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


def _model(item: pytest.Item) -> str | None:
    who = identity(item)
    return None if who is None else who.model


def _rank(item: pytest.Item) -> tuple[int, str]:
    who = identity(item)
    return (99, "") if who is None else rank(who.hypothesis)
