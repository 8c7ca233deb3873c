"""What a shell user waits for before anything is measured: collecting the evals and `evenbits --help`.

Beside bare pytest on the same number of tests, and beside a bare typer application; runs alternate.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.bench]

ROOT = Path(__file__).resolve().parents[2]
MORE = 0.5
"""Seconds that collecting may cost beyond bare pytest: a shell user must not wait for what is not measured yet."""

MORE_HELP = 0.3
"""Seconds that help may cost beyond typer's own (DESIGN section 6)."""

BARE = """
import typer
app = typer.Typer()
for name in ("damage", "rank"):
    app.command(name)(lambda: None)
app()
"""


@pytest.fixture
def contenders(tmp_path, tiny_llama):
    """Two commands that collect as many tests: the evals with a model, and plain tests.

    Both keep their compiled modules, as Python does unless told otherwise; the runs that count the tests compile them.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env = {
        **kept,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled"),
    }
    options = ["--collect-only", "-q", "-p", "no:cacheprovider"]

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *arguments],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return [line for line in done.stdout.splitlines() if "::" in line]

    evals = [
        "-c",
        str(ROOT / "plugins" / "evals.ini"),
        "-p",
        "evenbits.plugins",
        str(ROOT / "evals"),
        f"--model={tiny_llama}",
        "--spec=int4-g64",
    ]
    count = len(run(*evals))
    lines = "".join(f"def test_{number}(): pass\n" for number in range(count))
    (tmp_path / "test_bare.py").write_text(lines, encoding="utf-8")
    assert len(run("test_bare.py")) == count
    return {"evals": lambda: run(*evals), "bare": lambda: run("test_bare.py")}


def test_collecting_the_evals_costs_little_more_than_bare_pytest(interleaved, contenders, row):
    seconds = interleaved(contenders, main="evals")
    allowed = [bare + MORE for bare in seconds["bare"]]
    found = row(
        work="collecting evals",
        ours=seconds["evals"],
        peer=allowed,
        peer_name=f"pytest + {MORE} s",
        target=1,
        at_least=False,
    )
    assert found.reached, found


def test_help_costs_little_more_than_importing_and_building_a_typer_application(interleaved, tmp_path, row):
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env = {**kept, "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}

    def help_of(*command):
        def run():
            words = [sys.executable, *command, "--help"]
            done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
            assert "rank" in done.stdout

        return run

    contenders = {"evenbits": help_of("-m", "evenbits"), "typer": help_of("-c", BARE)}
    seconds = interleaved(contenders, main="evenbits")
    found = row(
        work="evenbits --help",
        ours=seconds["evenbits"],
        peer=[bare + MORE_HELP for bare in seconds["typer"]],
        peer_name=f"typer + {MORE_HELP} s",
        target=1,
        at_least=False,
    )
    assert found.reached, found
