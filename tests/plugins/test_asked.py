"""What a run writes down of its tests, so that a merge asks the same ones."""

from pathlib import Path

import evenbits.evals
import pytest
from evenbits.plugins.asked import chosen_tests
from evenbits.plugins.options import EVALS_INI

EVALS = Path(next(iter(evenbits.evals.__path__)))


@pytest.fixture
def own(pytester, monkeypatch):
    """A folder with `evals/` of its own, in which pytest is started."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (pytester.mkdir("evals") / "test_theirs.py").write_text("def test_theirs(): pass\n", encoding="utf-8")
    return pytester


def test_installed_evals_go_by_their_package_beside_a_folder_of_their_name(own):
    case = f"{EVALS / 'test_deployment_gate.py'}::test_nothing_got_worse"
    config = own.parseconfig("-c", str(EVALS_INI), f"--rootdir={EVALS}", str(EVALS), case, "evals", "-m", "gate")
    named = ("evenbits.evals", "evenbits.evals/test_deployment_gate.py::test_nothing_got_worse", "evals", "-m", "gate")
    assert chosen_tests(config) == named


def test_a_folder_of_ones_own_goes_by_its_place(own):
    assert chosen_tests(own.parseconfig("evals/test_theirs.py::test_theirs")) == ("evals/test_theirs.py::test_theirs",)
