"""A model of Qwen3-8B's shape on a machine that has no room for it: admitted, weighed and scored layer by layer.

The checkpoint is sparse: 16 GiB of files that take some 170 MiB of disk, random numbers in a few rows of each matrix.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from resident_memory import RESIDENT

pytestmark = pytest.mark.slow  # memory, whatever else the machine does; `tox run -e bench` has minutes, not these

ALLOWED = 12 * 1024  # MiB
TEXT = {
    "de": "das innere Ding ein Apfel sagt\nund noch eine Zeile Text fuer das Modell\n",
    "en": "the inner thing an apple says\nand one more line of text for the model\n",
}
RUN = (
    RESIDENT
    + """
import sys
from evenbits.commands.app import app
sys.argv = ["evenbits", *sys.argv[1:]]
try:
    app()
finally:
    sys.stderr.write(f"PEAK {resident('VmHWM'):.0f}\\n")
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from evenbits.models.shipped import reference_root
    from sparse_checkpoint import QWEN3_8B, write_sparse

    made = write_sparse(tmp_path_factory.mktemp("large") / "qwen3-8b", QWEN3_8B, tokenizer=reference_root() / "a1")
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize(
    "words",
    [["plan", "--cost"], ["rank", "--no-measure"], ["damage", "--stream-layers"]],
    ids=lambda words: words[0],
)
def test_eight_billion_weights_take_less_than_twelve_gib(words, folder, tmp_path, once, row):
    for tag, lines in TEXT.items():
        (tmp_path / f"{tag}.txt").write_text(lines, encoding="utf-8")
    options = ["--spec", "int4-g64", "--corpus", f"dir:{tmp_path}", "--store", str(folder.parent / "store")]

    def run(*more):
        return subprocess.run(
            [sys.executable, "-c", RUN, words[0], str(folder), *words[1:], *options, *more],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            cwd=Path(tmp_path),
        )

    told = json.loads(run("--cost", "--json").stdout)["cost"][str(folder)] if words[0] == "damage" else None
    done = once(run)
    assert done.returncode == 0, done.stderr
    peak = float(done.stderr.rpartition("PEAK ")[2])
    if told is not None:
        assert peak / 2 <= told["memory_bytes"] / 2**20 <= 2 * peak
    found = row(
        work=f"memory of {words[0]}, Qwen3-8B's shape",
        ours=[peak],
        peer=[float(ALLOWED)],
        peer_name="allowed",
        target=1,
        at_least=False,
        unit="MiB",
    )
    assert found.reached, found
