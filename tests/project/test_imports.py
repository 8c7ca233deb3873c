"""The directions of imports (pyproject.toml, [tool.importlinter]) hold, and the check itself can fail."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def lint(config):
    """Run import-linter on `config` as a process of its own: it leaves its imports and logging behind."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--config", str(config), "--no-cache"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=300,
    )


def test_every_import_follows_its_direction():
    pytest.importorskip("importlinter", reason="install the extra dev")
    done = lint(ROOT / "pyproject.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    assert f"{len(contracts['contracts'])} kept, 0 broken" in done.stdout


def test_a_contract_that_is_broken_is_reported(tmp_path):
    pytest.importorskip("importlinter", reason="install the extra dev")
    config = tmp_path / "upside_down.toml"
    config.write_text(
        '[tool.importlinter]\nroot_packages = ["evenbits"]\n'
        '[[tool.importlinter.contracts]]\nname = "Upside down"\ntype = "layers"\n'
        'layers = ["evenbits.errors", "evenbits.cells"]\n',
        encoding="utf-8",
    )
    done = lint(config)
    assert done.returncode == 1
    assert any("Upside down" in line and "BROKEN" in line for line in done.stdout.splitlines())


HEAVY = ("torch", "transformers", "scipy.stats", "pandas", "datasets", "polib")


@pytest.mark.parametrize(
    "modules",
    [
        "evenbits.cells, evenbits.studies.h039, evenbits.studies.h037, evenbits.statistics, evenbits.store",
        "evenbits",
        "evenbits.commands.app",
        "evenbits.report.document, evenbits.report.summary, evenbits.plugins.results, evenbits.plugins.terminal",
        "evenbits.fixtures.models, evenbits.fixtures.damages, evenbits.evals.test_h037_outlier_sparsity",
    ],
)
def test_what_only_reads_and_judges_imports_nothing_heavy(modules):
    """A run that the store serves, `--help` and the collection of evals stay quick."""
    code = f"import sys, {modules}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


NOT_FOR_COLLECTING = (
    *HEAVY,
    "scipy",
    "statsmodels",
    "huggingface_hub",
    "tokenizers",
    "gguf",
    "langcodes",
    "language_data",
    "django",
    "jsonschema",
    "jinja2",
    "pydantic",
    "rich",
    "typer",
    "platformdirs",
    "lm_eval",
    "ray",
    "accelerate",
    "asyncio",
    "multiprocessing",
    "urllib.request",
)


def test_collecting_all_evals_leaves_what_only_measuring_needs_alone(tmp_path):
    code = (
        "import sys, pytest\n"
        f"options = ['-c', {str(ROOT / 'plugins' / 'evals.ini')!r}, '-p', 'evenbits.plugins', '-p', 'no:cacheprovider']"
        "\n"
        f"arguments = ['--collect-only', '-qq', {str(ROOT / 'evals')!r}, '--model=reference:a1', '--spec=int3-row']\n"
        "code = pytest.main(options + arguments)\n"
        f"print('loaded', int(code), [name for name in {NOT_FOR_COLLECTING!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=120,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert "loaded 0 []" in done.stdout, done.stdout + done.stderr
    modules = {path.name for path in (ROOT / "evals").glob("test_*.py")}
    assert modules <= set(re.findall(r"test_\w+\.py", done.stdout)) | {"test_deployment_gate.py"}
