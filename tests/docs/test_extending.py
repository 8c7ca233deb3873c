"""docs/extending.md: its examples run as they stand, and every file it names exists."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", TEXT, re.DOTALL))
TAGS = ("am", "de", "en", "fr", "ig", "yo")


@pytest.fixture
def here(tmp_path):
    """A folder with the files of the document."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_every_file_that_is_named_exists():
    paths = set(re.findall(r"`((?:harness|evals|fixtures|plugins|tests|docs)/[\w./-]+)`", TEXT))
    assert len(paths) > 10
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    assert set(FILES) == {"my_evals/test_h101_even_damage.py", "conftest.py", "make_corpus.py"}


def test_the_eval_and_the_hooks_end_in_every_form_of_the_report(here, tiny_llama):
    (here / "texts").mkdir()
    for tag in TAGS:
        lines = [f"{tag}: the inner thing an {number} says {tag * (1 + number % 3)}" for number in range(8)]
        (here / "texts" / f"{tag}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "evenbits.plugins", "my_evals", f"--model={tiny_llama}",
         "--spec=int3-g32", "--corpus=dir:texts", "--languages=all", "--dtype=float32", "--report=out",
         f"--store={here / 'store'}", "--advisory"],
        cwd=here, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((here / "out" / "report.json").read_text(encoding="utf-8"))
    assert set(document["verdicts"]) == {"H-101", "support"}
    rows = {row["hypothesis"]: row for row in document["measurements"]}
    bits = {row["language"]: row["excess_bits"]["value"] for row in document["damage"]}
    ordered = sorted(bits.values())
    assert rows["H-101"]["estimate"]["value"] == pytest.approx(ordered[-1] / ((ordered[2] + ordered[3]) / 2))
    assert rows["support"]["estimate"]["value"] == pytest.approx(sum(value > 10 for value in ordered) / len(TAGS))
    (section,) = document["sections"]
    assert section["title"] == "Dearest per byte"
    assert len(section["rows"]) == 5
    said = f"{section['rows'][0][0]} loses most bits per byte of its text."
    assert f"Dearest per byte: {said}" in " ".join(done.stdout.split())
    assert said in (here / "out" / "summary.md").read_text(encoding="utf-8")
    assert said in (here / "out" / "index.html").read_text(encoding="utf-8")


def test_the_corpus_of_the_example_is_read_aligned(here, monkeypatch):
    from evenbits.text import load_corpus

    monkeypatch.chdir(here)
    subprocess.run([sys.executable, "make_corpus.py"], cwd=here, check=True, timeout=60)
    corpus = load_corpus("dir:my-texts", languages="all")
    assert corpus.languages == ("de", "en", "sw")
    assert corpus.segment_ids == ("greeting", "thanks", "bye", "sorry")
    assert corpus.texts["sw"][0] == "Habari ya asubuhi"
