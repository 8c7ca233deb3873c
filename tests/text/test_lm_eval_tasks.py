import json
import subprocess
import sys

import pytest
from evenbits.errors import ExportError
from evenbits.records import Corpus
from evenbits.text.lm_eval_tasks import task_name, write_tasks

TEXTS = {
    "de": ("Das ist ein Satz über Züge.", "Noch einer im {{Haus}} "),
    "ka": ("თბილისი საქართველოს დედაქალაქია.", "ქართული ენა"),
    "sr-Latn": (" Brza smeđa lisica.", "Još\njedna kuća"),
}


@pytest.fixture
def corpus():
    return Corpus(name="t", source="here", languages=tuple(TEXTS), segment_ids=("1", "2"), texts=TEXTS)


def test_a_task_and_its_texts_for_each_language_and_a_group(corpus, tmp_path):
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    names = write_tasks(corpus, tmp_path)
    assert names == ("evenbits_de", "evenbits_ka", "evenbits_sr_Latn")
    for tag, name in zip(corpus.languages, names, strict=True):
        described = yaml.load((tmp_path / f"{tag}.yaml").read_text(encoding="utf-8"), Loader)  # noqa: S506 - a safe one
        assert (described["task"], described["tag"]) == (name, "evenbits")
        assert described["dataset_kwargs"] == {"language": tag}
        rows = [json.loads(line) for line in (tmp_path / f"{tag}.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [row["text"] for row in rows] == list(TEXTS[tag])
    assert task_name("flores", "zh-Hans") == "flores_zh_Hans"


def test_tasks_of_an_earlier_call_are_not_left_to_be_run_beside_those_of_this_one(corpus, tmp_path):
    write_tasks(corpus, tmp_path)
    (tmp_path / "mine.yaml").write_text("task: mine\n", encoding="utf-8")
    write_tasks(corpus.select(languages=("ka",)), tmp_path)
    found = sorted(file.name for file in tmp_path.iterdir())
    assert found == ["evenbits_segments.py", "ka.jsonl", "ka.yaml", "mine.yaml"]


def test_a_folder_that_cannot_be_written_is_a_sentence(corpus, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="cannot be written into"):
        write_tasks(corpus, tmp_path / "file")


@pytest.mark.slow
def test_lm_evals_own_command_gives_our_bits_per_byte(corpus, tmp_path):
    import math

    import torch
    from evenbits.models.loading import load
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.scoring import score
    from evenbits.store import Store

    local = resolve(parse_model("reference:a1"), store=Store(tmp_path / "store"))
    write_tasks(corpus, tmp_path / "tasks")
    weights = f"pretrained={local.folder},dtype=float32"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "lm_eval",
            "--model",
            "hf",
            "--model_args",
            weights,
            "--tasks",
            "evenbits",
            "--include_path",
            str(tmp_path / "tasks"),
            "--device",
            "cpu",
            "--batch_size",
            "1",
            "--output_path",
            str(tmp_path / "out"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(next((tmp_path / "out").rglob("results_*.json")).read_text(encoding="utf-8"))["results"]
    loaded = load(local, dtype=torch.float32)
    for tag in corpus.languages:
        losses, _ = score(loaded, tag, corpus.segment_ids, TEXTS[tag], context=256)
        ours = losses.nll.sum() / (math.log(2) * losses.utf8_bytes.sum())
        assert results[task_name("evenbits", tag)]["bits_per_byte,none"] == pytest.approx(ours, abs=1e-4)
