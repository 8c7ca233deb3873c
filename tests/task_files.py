"""Task data made here for lm-evaluation-harness: two-way choices in six languages, nothing fetched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

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


def write_choices(folder: Path, *, documents: int = 20) -> Path:
    """Write tasks `inn_TAG` of the tag `inn`. The right answer is drawn: random weights are right half of the time."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for tag in LANGUAGES:
        words = rng.permutation(["inn", "other", "he", "she"] * (documents // 4))
        rows = [
            {"text": f"{tag} the {number}", "one": f" an {word}", "two": " thing", "right": int(rng.integers(2))}
            for number, word in enumerate(words)
        ]
        data = folder / f"{tag}.jsonl"
        data.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
        (folder / f"{tag}.yaml").write_text(TASK.format(tag=tag, data=json.dumps(str(data))), encoding="utf-8")
    return folder
