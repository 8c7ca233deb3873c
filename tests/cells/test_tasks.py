"""lm-eval's tasks as paired damage, on task data made here, in six languages."""

import numpy as np
import pytest
from evenbits.cells import Subject
from evenbits.cells.tasks import Tasks, compare_documents, language_of, measure_tasks
from evenbits.errors import UsageError
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.store import Store
from evenbits.variants.registry import parse
from task_files import LANGUAGES, write_choices


@pytest.fixture
def folder(tmp_path):
    return write_choices(tmp_path / "tasks")


@pytest.fixture
def subject(tiny_llama, tmp_path):
    store = Store(tmp_path / "store")
    return Subject(local=resolve(parse_model(str(tiny_llama)), store=store), store=store, dtype="float32", context=256)


def test_damage_is_paired_by_document():
    full = np.asarray([1, 1, 1, 1, 0, 0, 1, 1, 1, 1.0])
    quantized = np.asarray([1, 0, 0, 0, 1, 0, 1, 0, 0, 0.0])
    found = compare_documents(
        full, quantized, task="xnli_de", spec="s", metric="acc", language="de", rng=np.random.default_rng(0)
    )
    assert (found.full, found.quantized, found.lost, found.gained) == (0.8, 0.3, 6, 1)
    assert found.loss.value == pytest.approx(0.5)
    assert found.loss.low < 0.5 < found.loss.high
    # of 7 that flipped, 6 to one side: 2 x (1 + 7) / 2^7
    assert found.p == pytest.approx(2 * 8 / 128)
    assert found.recovery == pytest.approx(37.5)


def test_nothing_flipped_is_no_evidence():
    same = np.asarray([0.0, 1.0, 1.0])
    found = compare_documents(same, same, task="t", spec="s", metric="acc", language=None, rng=np.random.default_rng(0))
    assert (found.p, found.loss.value) == (1.0, 0.0)
    assert found.loss.low < -0.2 < 0.2 < found.loss.high  # three documents say little of the next


@pytest.mark.parametrize(
    ("task", "tag"),
    [
        ("belebele_deu_Latn", "de"),
        ("belebele_srp_Cyrl", "sr-Cyrl"),
        ("xnli_sw", "sw"),
        ("piqa", None),
        ("global_mmlu_full_hi", "hi"),
        ("arc_easy", None),
        ("xcopa_zh", "zh-Hans"),
        ("agieval_lsat_ar", None),
        ("mmlu_professional_law", None),
        ("crows_pairs_english_age", None),
        ("leaderboard_bbh", None),
    ],
)
def test_the_language_is_read_from_the_name(task, tag):
    assert language_of(task) == tag


def test_six_languages_of_local_tasks(subject, folder):
    found = measure_tasks(subject, [parse("int2-g32"), parse("int8-row")], Tasks(names=("inn",), folder=folder)).rows
    assert [(row.task, row.spec) for row in found] == [
        *((f"inn_{tag}", "int2-g32") for tag in LANGUAGES),
        *((f"inn_{tag}", "int8-row") for tag in LANGUAGES),
    ]
    assert {row.documents for row in found} == {20}
    assert [row.language for row in found[:6]] == list(LANGUAGES)
    coarse = sum(row.lost + row.gained for row in found[:6])
    fine = sum(row.lost + row.gained for row in found[6:])
    assert coarse > fine  # 2 bits flip more answers than 8
    for row in found:
        assert row.full - row.quantized == pytest.approx(row.loss.value)
        assert row.full - row.quantized == pytest.approx((row.lost - row.gained) / 20)


def test_a_spec_that_is_scored_in_float32_is_held_against_float32(tiny_llama, folder, tmp_path, monkeypatch):
    """Answers that bfloat16 alone flips counted as lost by eight bits."""
    from evenbits.cells import tasks

    opened, run = [], tasks._run
    monkeypatch.setattr(
        tasks, "_run", lambda subject, variant, asked: opened.append(variant) or run(subject, variant, asked)
    )
    store = Store(tmp_path / "half")
    subject = Subject(local=resolve(parse_model(str(tiny_llama)), store=store), store=store, dtype="bfloat16")
    measure_tasks(subject, [parse("int8-row"), parse("int4-g32")], Tasks(names=("inn_de",), folder=folder, limit=2))
    assert [(one.label, one.dtype or "bfloat16") for one in opened] == [
        ("int8-row", "float32"),
        ("full precision", "float32"),
        ("int4-g32", "bfloat16"),
        ("full precision", "bfloat16"),
    ]


def test_what_was_measured_is_not_run_again_and_other_task_files_are(subject, folder, monkeypatch):
    asked = Tasks(names=("inn_de",), folder=folder, limit=8)
    first = measure_tasks(subject, [parse("int4-g32")], asked)
    assert first.rows[0].documents == 8
    from evenbits.cells import tasks

    def refuse(*_args):
        raise AssertionError("it ran again")

    monkeypatch.setattr(tasks, "_run", refuse)
    assert measure_tasks(subject, [parse("int4-g32")], asked) == first
    (folder / "de.jsonl").write_text((folder / "en.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(AssertionError, match="it ran again"):
        measure_tasks(subject, [parse("int4-g32")], asked)


def test_a_task_folder_that_is_not_there_is_named(subject, tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        measure_tasks(subject, [parse("int4-g32")], Tasks(names=("inn",), folder=tmp_path / "none"))


def test_what_torch_does_not_run_is_no_row_and_says_why(subject, folder, monkeypatch):
    from contextlib import nullcontext

    from evenbits.cells import tasks
    from evenbits.variants.variant import Variant

    elsewhere = Variant(label="served:x", key={"served": "x"}, runs=lambda _original: nullcontext(object()))
    monkeypatch.setattr(tasks, "variant_of", lambda _spec, _subject: elsewhere)
    found = measure_tasks(subject, [parse("int4-g32")], Tasks(names=("inn_de",), folder=folder, limit=2))
    assert found.rows == ()
    assert "served:x is not run by torch" in found.refused["int4-g32"]
    assert found.of("int4-g32", "de", seed=0)["loss"]["reason"] == found.refused["int4-g32"]


def test_a_damage_row_has_all_documents_of_its_languages_tasks(subject, folder):
    from evenbits.cells import measure_damage
    from evenbits.records import Corpus

    described = (folder / "de.yaml").read_text(encoding="utf-8")
    (folder / "other.yaml").write_text(described.replace("task: inn_de", "task: other_de"), encoding="utf-8")
    texts = {"de": ("the inner thing", "he is"), "en": ("an inn", "the other"), "it": ("in the inn", "an hill")}
    corpus = Corpus(name="t", source="here", languages=("de", "en", "it"), segment_ids=("1", "2"), texts=texts)
    asked = Tasks(names=("inn", "other_de"), folder=folder)
    rows = measure_damage(subject, [parse("int2-g32")], corpus, tasks=asked).rows(seed=0)
    by_language = {row["language"]: row.get("tasks") for row in rows}
    assert by_language["it"] is None
    assert (by_language["en"]["task"], by_language["en"]["documents"]) == ("inn_en", 20)
    both = by_language["de"]
    assert (both["task"], both["documents"], len(both["of"])) == ("inn_de + other_de", 40, 2)
    assert both["lost"] == sum(one["lost"] for one in both["of"])
    assert both["loss"]["value"] == pytest.approx(by_language["de"]["of"][0]["loss"]["value"])  # the same task twice
