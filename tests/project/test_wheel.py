"""What the wheel holds is enough: commands run from any folder, on a reference model, without the checkout."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = "de,en,fi,fr,ga,hu,ja,ko,ru,uk"
WHAT = ("--model", "reference:a1", "--spec", "int3-row", "--segments", "4", "--languages", LANGUAGES)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the contents of the wheel, built from a copy of the checkout, and nothing else."""
    place = tmp_path_factory.mktemp("wheel")
    left = shutil.ignore_patterns(".*", "__pycache__", "reports", "build", "*.egg-info", "tests")
    shutil.copytree(ROOT, place / "source", ignore=left)
    _pip("wheel", "--no-deps", str(place / "source"), "--wheel-dir", str(place))
    (wheel,) = place.glob("evenbits-*.whl")
    _pip("install", "--no-deps", "--target", str(place / "site"), str(wheel))
    return place / "site"


def _pip(*arguments):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    done = subprocess.run([*pip, *arguments], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def evenbits(installed, tmp_path_factory):
    """`evenbits(*arguments)` -> the finished command, in a folder of its own that holds no checkout."""
    folder, store = tmp_path_factory.mktemp("elsewhere"), tmp_path_factory.mktemp("store")
    env = {
        **os.environ, "PYTHONPATH": str(installed), "EVENBITS_STORE": str(store), "HF_HUB_OFFLINE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }  # fmt: skip

    def run(*arguments):
        command = [sys.executable, "-c", "from evenbits.commands.app import main; main()", *map(str, arguments)]
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600)

    run.folder = folder
    return run


def test_the_commands_are_those_of_the_wheel(evenbits, installed):
    done = subprocess.run(
        [sys.executable, "-c", "import evenbits, evenbits.evals, evenbits.plugins; print(evenbits.__file__)"],
        cwd=evenbits.folder, env={**os.environ, "PYTHONPATH": str(installed)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert Path(done.stdout.strip()).is_relative_to(installed)


def test_run_policy_gate_and_damage_work_from_any_folder(evenbits):
    done = evenbits("run", *WHAT, "--advisory", "--report=out")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((evenbits.folder / "out" / "report.json").read_text(encoding="utf-8"))
    assert {"H-035", "H-036", "H-037", "H-038", "H-039"} <= set(report["verdicts"])
    assert (evenbits.folder / "out" / "index.html").is_file()
    assert {row["verdict"] for row in report["measurements"]} & {"error"} == set()

    assert evenbits("policy", "init", "out/report.json", "-o", "policy.toml").returncode == 0
    passed = evenbits("gate", *WHAT, "--policy", "policy.toml", "--report=gate")
    assert passed.returncode == 0, passed.stdout + passed.stderr
    strict = (evenbits.folder / "policy.toml").read_text(encoding="utf-8")
    lines = ["language.ko.limit = 0.5" if line.startswith("language.ko.limit = ") else line
             for line in strict.splitlines()]  # fmt: skip
    (evenbits.folder / "strict.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    refused = evenbits("gate", *WHAT, "--policy", "strict.toml", "--report=strict")
    assert refused.returncode == 1, refused.stdout + refused.stderr
    assert "ko" in refused.stdout

    rows = evenbits("damage", "reference:a1", "--spec", "int3-row", "--segments", "4", "--languages", "de,ga", "--json")
    assert rows.returncode == 0, rows.stderr
    assert [row["language"] for row in json.loads(rows.stdout)["damage"]] == ["de", "ga"]
