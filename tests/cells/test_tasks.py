"""lm-eval's tasks as paired damage, on task data made here, in six languages."""

import json

import numpy as np
import pytest
from evenbits.cells import Subject
from evenbits.cells.tasks import compare_documents, language_of, measure_tasks
from evenbits.errors import NotApplicableError, UsageError
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.store import Store
from evenbits.variants.registry import parse

LANGUAGES = ("de", "en", "fr", "ka", "sw", "vi")

TASK = """task: inn_{tag}
tag: inn
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: text
doc_to_choice: ["{{{{one}}}}", "{{{{two}}}}"]
doc_to_target: right
target_delimiter: ""
metric_list:
  - metric: acc
metadata:
  version: 1
"""


@pytest.fixture
def folder(tmp_path):
    """Two-way choices whose right answer is drawn: a model of random weights is right half of the time."""
    place = tmp_path / "tasks"
    place.mkdir()
    rng = np.random.default_rng(0)
    for tag in LANGUAGES:
        rows = [
            {"text": f"{tag} the {number}", "one": f" an {word}", "two": " thing", "right": int(rng.integers(2))}
            for number, word in enumerate(rng.permutation(["inn", "other", "he", "she"] * 5))
        ]
        data = place / f"{tag}.jsonl"
        data.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
        (place / f"{tag}.yaml").write_text(TASK.format(tag=tag, data=json.dumps(str(data))), encoding="utf-8")
    return place


@pytest.fixture
def subject(tiny_llama, tmp_path):
    store = Store(tmp_path / "store")
    return Subject(local=resolve(parse_model(str(tiny_llama)), store=store), store=store, dtype="float32", context=256)


def test_damage_is_paired_by_document():
    full = np.asarray([1, 1, 1, 1, 0, 0, 1, 1, 1, 1.0])
    quantized = np.asarray([1, 0, 0, 0, 1, 0, 1, 0, 0, 0.0])
    found = compare_documents(full, quantized, task="xnli_de", spec="s", metric="acc", rng=np.random.default_rng(0))
    assert (found.full, found.quantized, found.lost, found.gained) == (0.8, 0.3, 6, 1)
    assert found.difference.value == pytest.approx(-0.5)
    assert found.difference.low < -0.5 < found.difference.high
    # of 7 that flipped, 6 to one side: 2 x (1 + 7) / 2^7
    assert found.p == pytest.approx(2 * 8 / 128)
    assert found.recovery == pytest.approx(37.5)


def test_nothing_flipped_is_no_evidence():
    same = np.asarray([0.0, 1.0, 1.0])
    found = compare_documents(same, same, task="t", spec="s", metric="acc", rng=np.random.default_rng(0))
    assert (found.p, found.difference.value) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("task", "tag"),
    [
        ("belebele_deu_Latn", "de"),
        ("belebele_srp_Cyrl", "sr-Cyrl"),
        ("xnli_sw", "sw"),
        ("piqa", None),
        ("global_mmlu_full_hi", "hi"),
        ("arc_easy", None),
        ("xcopa_zh", "zh"),
    ],
)
def test_the_language_is_read_from_the_name(task, tag):
    assert language_of(task) == tag


def test_six_languages_of_local_tasks(subject, folder):
    found = measure_tasks(subject, [parse("int2-g32"), parse("int8-row")], ["inn"], include=folder)
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
        assert row.quantized - row.full == pytest.approx(row.difference.value)
        assert row.quantized - row.full == pytest.approx((row.gained - row.lost) / 20)


def test_what_was_measured_is_not_run_again_and_other_task_files_are(subject, folder, monkeypatch):
    first = measure_tasks(subject, [parse("int4-g32")], ["inn_de"], include=folder, limit=8)
    assert first[0].documents == 8
    from evenbits.cells import tasks

    def refuse(*_args):
        raise AssertionError("it ran again")

    monkeypatch.setattr(tasks, "_run", refuse)
    assert measure_tasks(subject, [parse("int4-g32")], ["inn_de"], include=folder, limit=8) == first
    (folder / "de.jsonl").write_text((folder / "en.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(AssertionError, match="it ran again"):
        measure_tasks(subject, [parse("int4-g32")], ["inn_de"], include=folder, limit=8)


def test_a_task_folder_that_is_not_there_is_named(subject, tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        measure_tasks(subject, [parse("int4-g32")], ["inn"], include=tmp_path / "none")


def test_what_torch_does_not_run_is_not_applicable(subject, folder, monkeypatch):
    from contextlib import nullcontext

    from evenbits.cells import tasks
    from evenbits.variants.variant import Variant

    elsewhere = Variant(label="served:x", key={"served": "x"}, runs=lambda _original: nullcontext(object()))
    monkeypatch.setattr(tasks, "variant_of", lambda _spec, _subject: elsewhere)
    with pytest.raises(NotApplicableError, match="served:x is not run by torch"):
        measure_tasks(subject, [parse("int4-g32")], ["inn_de"], include=folder, limit=2)
