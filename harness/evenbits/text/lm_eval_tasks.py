"""A corpus as tasks of lm-evaluation-harness: one for each language and a group of all, for `--include_path`.

Each document is a segment, scored whole by its rolling log-likelihood, so that `bits_per_byte` is ours. The folder
holds its texts itself and may be moved.
"""

from __future__ import annotations

import json
from pathlib import Path

from evenbits.errors import ExportError
from evenbits.records import Corpus

__all__ = ["task_name", "write_tasks"]

LOADER = '''"""The texts beside this file, for lm-evaluation-harness."""

from pathlib import Path


def segments(language, **_):
    """Return the test split of one language."""
    from datasets import load_dataset

    return load_dataset("json", data_files={"test": str(Path(__file__).parent / f"{language}.jsonl")})
'''

MARK = "custom_dataset: !function evenbits_segments.segments"
"""By which a task of ours is known."""

TASK = """task: {name}
tag: {group}
{mark}
dataset_kwargs:
  language: {language}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list:
  - metric: bits_per_byte
  - metric: byte_perplexity
metadata:
  version: 1
"""


def task_name(group: str, language: str) -> str:
    """Return the name of a language's task: `evenbits_gettext_sr_Cyrl`."""
    return f"{group}_{language.replace('-', '_')}"


def write_tasks(corpus: Corpus, folder: Path, *, group: str = "evenbits") -> tuple[str, ...]:
    """Write the tasks of `corpus` into `folder`, and return their names; `ExportError` where it cannot be written.

    `group` names all of them for `lm_eval --tasks`, too. What an earlier call left there of other languages is removed:
    it would be run with them, on other text.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for task in folder.glob("*.yaml"):
            if task.stem not in corpus.languages and MARK in task.read_text(encoding="utf-8"):
                task.unlink()
                task.with_suffix(".jsonl").unlink(missing_ok=True)
        (folder / "evenbits_segments.py").write_text(LOADER, encoding="utf-8")
        for tag in corpus.languages:
            rows = [
                json.dumps({"id": name, "text": text}, ensure_ascii=False)
                for name, text in zip(corpus.segment_ids, corpus.texts[tag], strict=True)
            ]
            (folder / f"{tag}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
            name = json.dumps(task_name(group, tag))
            described = TASK.format(mark=MARK, name=name, group=json.dumps(group), language=json.dumps(tag))
            (folder / f"{tag}.yaml").write_text(described, encoding="utf-8")
    except OSError as error:
        raise ExportError(f"the tasks cannot be written into {folder}: {error}") from error
    return tuple(task_name(group, tag) for tag in corpus.languages)
