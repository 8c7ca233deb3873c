"""What the wheel holds is enough: commands run from any folder, on a reference model, without the checkout.

And it owns one name: projects with folders called like those of a checkout, and other packages, are left alone.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
OWN_TEST = """
import fixtures
import harness.tool
import plugins.helper


def test_theirs():
    assert fixtures.NAME == "of another project"
    assert (harness.tool.NAME, plugins.helper.NAME) == ("their tool", "their helper")
"""

OWN_EVAL = """
import pytest
from evenbits.estimates import Finding, Threshold
from evenbits.statistics import mean_interval

MILD = Threshold(metric="excess_bits", op="<", bound=1e9, why="any number will do here")


@pytest.mark.hypothesis("H-100")
@pytest.mark.criterion
def test_the_first_language(damage, spec, record, rng):
    estimate = mean_interval(damage.excess_bits(str(spec))[0], rng=rng)
    assert record(Finding(estimate=estimate), MILD).supported
"""

LANGUAGES = "de,en,fi,fr,ga,hu,ja,ko,ru,uk"
TEXT = f'languages = "{LANGUAGES}"\nsegments = 10\n'
WHAT = ("--model", "reference:a1", "--spec", "int3-row", "--segments", "10", "--languages", LANGUAGES)


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


@pytest.fixture(scope="module")
def theirs(tmp_path_factory, installed):
    """A project with folders of the names that a checkout has, and beside it a package called `fixtures`."""
    folder = tmp_path_factory.mktemp("theirs")
    for name, text in {
        "evals/test_theirs.py": OWN_TEST,
        "my_evals/test_mine.py": OWN_EVAL,
        "harness/__init__.py": "",
        "harness/tool.py": 'NAME = "their tool"',
        "plugins/__init__.py": "",
        "plugins/helper.py": 'NAME = "their helper"',
        "pyproject.toml": f'[tool.evenbits]\nmodel = "reference:a1"\nspec = "int3-row"\n{TEXT}',
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    other = tmp_path_factory.mktemp("fixtures")
    (other / "fixtures").mkdir()
    (other / "fixtures" / "__init__.py").write_text('NAME = "of another project"\n', encoding="utf-8")
    (other / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "fixtures"\nversion = "4.2"\n',
        encoding="utf-8",
    )
    _pip("install", "--no-deps", "--target", str(installed), str(other))
    return folder


def _pip(*arguments):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    done = subprocess.run([*pip, *arguments], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def evenbits(installed, tmp_path_factory):
    """`evenbits(*arguments)` -> the finished command, in a folder of its own that holds no checkout."""
    folder, store = tmp_path_factory.mktemp("elsewhere"), tmp_path_factory.mktemp("store")
    env = {
        **os.environ,
        "PYTHONPATH": str(installed),
        "EVENBITS_STORE": str(store),
        "HF_HUB_OFFLINE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }

    def run(*arguments, cwd=folder, program=("-c", "from evenbits.commands.app import main; main()")):
        command = [sys.executable, *program, *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=600)

    run.folder = folder
    return run


def test_the_commands_are_those_of_the_wheel(evenbits, installed):
    done = subprocess.run(
        [sys.executable, "-c", "import evenbits, evenbits.evals, evenbits.plugins; print(evenbits.__file__)"],
        cwd=evenbits.folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
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
    lines = [
        "language.ko.limit = 0.5" if line.startswith("language.ko.limit = ") else line for line in strict.splitlines()
    ]
    (evenbits.folder / "strict.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    refused = evenbits("gate", *WHAT, "--policy", "strict.toml", "--report=strict")
    assert refused.returncode == 1, refused.stdout + refused.stderr
    assert "ko" in refused.stdout

    rows = evenbits("damage", *WHAT[1:-1], "de,ga", "--json")
    assert rows.returncode == 0, rows.stderr
    assert [row["language"] for row in json.loads(rows.stdout)["damage"]] == ["de", "ga"]


def test_the_only_name_at_the_top_of_the_wheel_is_evenbits(installed):
    assert {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")} <= {
        "evenbits",
        "bin",
        "fixtures",  # the last is another project's, if it is installed already
    }
    folders = {path.name for path in (installed / "evenbits").rglob("*") if path.is_dir()}
    assert folders & {"training", "controls", "tests", "benchmarks"} == set()


def test_a_project_with_folders_and_packages_of_our_names_works_and_so_do_we(evenbits, theirs):
    pytest_ = ("-m", "pytest", "-p", "no:cacheprovider")
    own = evenbits("evals", cwd=theirs, program=pytest_)
    assert own.returncode == 0, own.stdout + own.stderr
    assert "evenbits" not in own.stdout.replace(str(theirs), "")

    both = evenbits("-p", "evenbits.plugins", "evals", "my_evals", "--report=mine", cwd=theirs, program=pytest_)
    assert both.returncode == 0, both.stdout + both.stderr
    assert "2 passed" in both.stdout
    report = json.loads((theirs / "mine" / "report.json").read_text(encoding="utf-8"))
    assert report["verdicts"]["H-100"]["verdict"] == "supported"

    done = evenbits("run", "test_h037_outlier_sparsity.py", "--advisory", "-m", "criterion", cwd=theirs)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (theirs / "reports" / "latest" / "report.json").is_file()

    assert evenbits("policy", "init", "mine/report.json", "-o", "policy.toml", cwd=theirs).returncode == 0
    passed = evenbits("gate", "--policy", "policy.toml", "--report=gate", cwd=theirs)
    assert passed.returncode == 0, passed.stdout + passed.stderr
