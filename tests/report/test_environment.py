"""Where and with what a report was made."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from evenbits.report import environment
from evenbits.report.environment import describe_environment


def test_versions_are_looked_up_and_measured_values_win():
    found = describe_environment(seed=7, dtype="float32", measured={"device": "cuda:0", "threads": 2})
    assert found["packages"]["numpy"] == version("numpy")
    assert (found["seed"], found["dtype"], found["device"], found["threads"]) == (7, "float32", "cuda:0", 2)
    assert found["python"] == platform.python_version()


def test_a_checkout_gives_its_commit_and_whether_it_was_changed(tmp_path):
    def git(*arguments):
        subprocess.run(
            ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", str(tmp_path), *arguments],
            check=True,
            capture_output=True,
        )

    assert environment._commit(tmp_path) == (None, None)  # not a checkout
    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "first")
    commit, dirty = environment._commit(tmp_path)
    assert len(commit) == 40
    assert dirty is False
    (tmp_path / "a").write_text("2")
    assert environment._commit(tmp_path) == (commit, True)


def test_the_commit_is_looked_for_at_the_top_of_this_checkout():
    top = Path(__file__).resolve().parents[2]
    assert top == environment.CHECKOUT
    if (top / ".git").exists():
        assert len(describe_environment(seed=0, dtype="float32")["code"]["commit"]) == 40
