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
HYPOTHESIS = ("harness/evenbits/studies/h040/__init__.py", "evals/test_h040_longer_segments.py")
BACKEND = ("harness/evenbits/variants/cast.py",)
TAGS = ("am", "de", "en", "fr", "ig", "yo")


@pytest.fixture
def here(tmp_path):
    """A folder with the files of the document."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_every_file_that_is_named_exists():
    paths = set(re.findall(r"`((?:harness|evals|fixtures|plugins|tests|docs)/[\w./-]+)`", TEXT))
    assert len(paths) > 10
    assert [path for path in sorted(paths) if not (ROOT / path).exists() and path not in FILES] == []
    assert set(FILES) >= {
        "my_evals/test_h101_even_damage.py",
        "conftest.py",
        "make_corpus.py",
        "table.py",
        *HYPOTHESIS,
        *BACKEND,
    }


def test_a_hypothesis_is_two_files_and_a_backend_one():
    assert [name for name in FILES if "h040" in name] == list(HYPOTHESIS)
    assert [name for name in FILES if "variants" in name] == list(BACKEND)
    assert len(HYPOTHESIS) == 2  # its folder, its eval module
    assert len(BACKEND) == 1  # and a line of the registry


@pytest.mark.slow
def test_the_built_in_hypothesis_is_measured_judged_and_shown_by_its_folder_alone(here, tiny_llama, tagged_texts):
    inserted = (
        "import evenbits.studies\n"
        f"evenbits.studies.__path__.append({str(here / 'harness' / 'evenbits' / 'studies')!r})\n"
    )
    (here / "conftest.py").write_text(inserted, encoding="utf-8")
    options = [
        "-p",
        "evenbits.plugins",
        "evals",
        f"--model={tiny_llama}",
        "--spec=int3-g32",
        "--languages=all",
        f"--corpus=dir:{tagged_texts(TAGS, 12)}",
        "--dtype=float32",
        f"--store={here / 'store'}",
        "--report=out",
        "--advisory",
    ]

    def pytest_says(*more):
        command = [sys.executable, "-m", "pytest", *options, *more]
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # 6 languages under the spec and in full precision; the noise floor's sample: both, in two batch compositions
    assert re.search(r"1 tests: (\d+) cells", pytest_says("--collect-only")).group(1) == str(12 + 24)
    pytest_says()
    document = json.loads((here / "out" / "report.json").read_text(encoding="utf-8"))
    assert set(document["verdicts"]) == {"H-040"}
    assert "Longer segments lose more bits" in (here / "out" / "index.html").read_text(encoding="utf-8")


def test_the_backend_of_the_example_is_a_spec_like_any_other(here, tiny_llama, store, monkeypatch):
    import evenbits.variants
    from evenbits.cells import Subject, measure_damage
    from evenbits.errors import SpecError
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.records import Corpus
    from evenbits.variants import registry

    monkeypatch.setattr(
        evenbits.variants, "__path__", [*evenbits.variants.__path__, str(here / "harness" / "evenbits" / "variants")]
    )
    monkeypatch.setattr(registry, "MODULES", {**registry.MODULES, "cast": "cast"})
    specs = registry.parse_specs("cast:float16,cast:bfloat16")
    assert [str(spec) for spec in specs] == ["cast:float16", "cast:bfloat16"]
    with pytest.raises(SpecError, match="after cast: comes float16 or bfloat16"):
        registry.parse_specs("cast:int2")
    texts = {tag: tuple(f"{tag} says the {number}th thing" for number in range(4)) for tag in ("de", "fr")}
    corpus = Corpus(
        name="hand", source="the test", languages=("de", "fr"), segment_ids=("a", "b", "c", "d"), texts=texts
    )
    subject = Subject(local=resolve(parse_model(str(tiny_llama)), store=store), store=store, dtype="float32")
    damage = measure_damage(subject, specs, corpus)
    # tiny weights have 24 bits: float16 keeps 11 of them, bfloat16 8, so it loses about 2^3 times as much
    moved = [abs(damage.excess_bits(str(spec))).mean() for spec in specs]
    assert 0 < moved[0] < moved[1]
    assert damage.columns["cast:float16"].facts == {"format": "float16"}


def test_the_eval_and_the_hooks_end_in_every_form_of_the_report(here, tiny_llama):
    (here / "texts").mkdir()
    for tag in TAGS:
        lines = [f"{tag}: the inner thing an {number} says {tag * (1 + number % 3)}" for number in range(8)]
        (here / "texts" / f"{tag}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "evenbits.plugins",
            "my_evals",
            f"--model={tiny_llama}",
            "--spec=int3-g32",
            "--corpus=dir:texts",
            "--languages=all",
            "--dtype=float32",
            "--report=out",
            f"--store={here / 'store'}",
            "--advisory",
        ],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
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


def test_a_new_kind_of_corpus_is_the_module_of_the_example_and_a_line_in_a_table(here, monkeypatch):
    from evenbits.errors import CorpusError
    from evenbits.text import load_corpus, references

    (here / "talks.csv").write_text(
        "id,en,de,sw\nhello,Hi there,Hallo,Habari\nbye,Goodbye,,Kwaheri\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(here)  # stands for evenbits/text
    monkeypatch.setitem(references.READERS, "table", "table")
    corpus = load_corpus(f"table:{here / 'talks.csv'}")
    assert (corpus.languages, corpus.segment_ids) == (("de", "en", "sw"), ("hello",))
    assert ("de", "empty") in {(one.language, one.reason) for one in corpus.left_out}
    assert load_corpus(f"table:{here / 'talks.csv'}", languages="en,sw").segment_ids == ("hello", "bye")
    with pytest.raises(CorpusError, match="cannot be read"):
        load_corpus("table:not-there.csv")
