"""docs/: every link leads somewhere, the site names every page, and docs/files.md the columns that are written."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from evenbits.report.tables import COLUMNS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def anchors(page):
    """Return the anchors that headings of a page have, as Markdown processors make them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_page_and_a_heading(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://")):
            name, _, anchor = target.partition("#")
            there = page.parent / name if name else page
            assert there.is_file(), target
            assert not anchor or anchor in anchors(there), target


@pytest.mark.skipif(shutil.which("mkdocs") is None, reason="lifted by: tox run -e docs")
def test_the_site_is_built_without_a_warning(tmp_path):
    command = ["mkdocs", "build", "--strict", "-q", "-f", str(DOCS.parent / ".mkdocs.yml"), "-d", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("table", COLUMNS)
def test_every_column_of_a_table_is_documented_and_nothing_else(table):
    text = (DOCS / "files.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- columns: {table} -->\n(.*?)(?:\n\n|$)", text, re.DOTALL)[1]
    named = re.findall(r"`([\w*]+)`", "".join(line.split("|")[1] for line in found.splitlines()[2:]))
    patterns = [name.replace("*", r"\w+") if not name.startswith("_") else rf"\w+{name}" for name in named]
    assert all(any(re.fullmatch(one, column) for one in patterns) for column in COLUMNS[table])
    assert all(any(re.fullmatch(one, column) for column in COLUMNS[table]) for one in patterns)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_the_commands(shell, monkeypatch):
    from evenbits.commands.app import app
    from typer.testing import CliRunner

    # Else typer looks for the shell above this process, of which a detached run has none, and takes no name.
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")

    result = CliRunner().invoke(app, ["--show-completion", shell], prog_name="evenbits")
    assert result.exit_code == 0, result.output
    assert "_EVENBITS_COMPLETE" in result.stdout
