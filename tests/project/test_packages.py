"""What a wheel holds, read from pyproject.toml without building one: one name, all packages, no training scripts."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
NOT_SHIPPED = {"evenbits.fixtures.reference.training"}

LISTED = """
import json
from setuptools import Distribution
from setuptools.config.pyprojecttoml import apply_configuration

project = apply_configuration(Distribution({"script_name": "setup.py"}), "pyproject.toml")
wheel = project.get_command_obj("build_py")
wheel.build_lib = "LIB"
wheel.ensure_finalized()
print(json.dumps(wheel.get_outputs(include_bytecode=False)))
"""


def test_every_package_folder_is_listed_and_nothing_else():
    found = set()
    for name, folder in SETTINGS["package-dir"].items():
        for file in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join([name, *file.parent.relative_to(ROOT / folder).parts]))
    assert sorted(SETTINGS["packages"]) == sorted(found - NOT_SHIPPED)


def test_the_wheel_has_one_name_and_holds_the_family_but_not_how_it_was_trained():
    pytest.importorskip("setuptools", minversion="77", reason="install the extra dev")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LISTED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = [Path(name).relative_to("LIB").as_posix() for name in json.loads(done.stdout.splitlines()[-1])]
    assert {name.partition("/")[0] for name in files} == {"evenbits"}
    for needed in (
        "evenbits/py.typed",
        "evenbits/families.toml",
        "evenbits/report/schema.json",
        "evenbits/plugins/evals.ini",
        "evenbits/evals/test_h037_outlier_sparsity.py",
        "evenbits/fixtures/reference/models/a1/config.json",
    ):
        assert needed in files
    assert [name for name in files if "/training/" in name or "/tests/" in name or "/controls/" in name] == []


def test_the_test_command_is_run_in_a_clone_with_our_name_and_a_blank_in_its_path(tmp_path):
    """`.ci/run` from a small repository whose README asks for something that can be looked at."""
    place = tmp_path / "checkout"
    (place / ".ci").mkdir(parents=True)
    (place / ".ci" / "run").write_text((ROOT / ".ci" / "run").read_text(encoding="utf-8"), encoding="utf-8")
    (place / "README.md").write_text(
        "tox run -e tests elsewhere\n<!-- test command -->\n```\npwd && echo tox run -e tests\n```\n", encoding="utf-8"
    )
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(place)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    done = subprocess.run(["bash", str(place / ".ci" / "run")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    where, said = done.stdout.splitlines()[-2:]
    assert where.endswith(" folder/evenbits")
    assert said == "tox run -e tests"
    assert not Path(where).exists()
