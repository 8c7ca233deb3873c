"""The established findings as a user runs them: five rows, five verdicts, in every form of the report."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
TAGS = ("am", "ca", "cs", "da", "de", "en", "es", "fi", "fr", "ga")
FINDINGS = {
    "E-1": "test_outliers_explain_disparity",
    "E-2": "test_outliers_sit_in_attention_projections",
    "E-3": "test_outliers_grow_during_training",
    "E-4": "test_attention_sinks_are_not_outliers",
    "E-5": "test_fertility_is_not_degradation",
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for place, tag in enumerate(TAGS):  # from language to language it takes more tokens to say the same
        lines = [f"{tag}: the inner thing an {number} says {tag * (place + number % 3)}" for number in range(6)]
        (folder / f"{tag}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def checkpoints(tiny_llama, tmp_path_factory):
    """Four checkpoints of one run: one weight of layer 0's down projection grows from step to step."""
    import shutil

    from safetensors.numpy import load_file, save_file

    folder = tmp_path_factory.mktemp("run")
    made = []
    for step, size in ((10, 1), (20, 12), (40, 30), (None, 80)):
        target = folder / ("run" if step is None else f"run-s{step}")
        shutil.copytree(tiny_llama, target)
        tensors = load_file(target / "model.safetensors")
        weight = tensors["model.layers.0.mlp.down_proj.weight"]
        weight[0, 0] = size * weight.std()
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        made.append(target)
    return made


@pytest.fixture(scope="module")
def run(texts, checkpoints, tmp_path_factory):
    here = tmp_path_factory.mktemp("here")
    command = [
        sys.executable,
        "-m",
        "evenbits",
        "run",
        "test_established_findings.py",
        "--advisory",
        "--spec=int3-row",
        f"--corpus=dir:{texts}",
        "--languages=all",
        "--dtype=float32",
        "--report=out",
        "--store=store",
        *(f"--model={folder}" for folder in reversed(checkpoints)),
    ]
    done = subprocess.run(
        command,
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "160"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done, json.loads((here / "out" / "report.json").read_text(encoding="utf-8")), here / "out"


def rows(report):
    return {row["hypothesis"]: row for row in report["measurements"]}


def test_five_findings_are_measured_once_over_all_models(run):
    _, report, _ = run
    assert {row["hypothesis"]: row["test"] for row in report["measurements"]} == FINDINGS
    assert len(report["measurements"]) == 5
    for row in report["measurements"]:
        assert (row["role"], row["model"]) == ("established", None)
        assert row["verdict"] != "error", row["explain"]
        assert row["threshold"]["why"]
    assert list(report["verdicts"]) == list(FINDINGS)  # each by its own name, and no group beside them


def test_growth_is_that_of_the_planted_weight(run):
    row = rows(run[1])["E-3"]
    assert row["verdict"] == "underpowered", row["explain"]  # one training run
    # n = 64 x 128 normal weights and one of z standard deviations: z^4 / n over the square of the variance, 1 + z^2 / n
    assert row["estimate"]["value"] > 100
    tails = row["data"]["growth"]["series"][0]["y"]
    assert tails[-1] == pytest.approx(80**4 / (64 * 128) / (1 + 80**2 / (64 * 128)) ** 2, rel=0.05)
    assert tails == sorted(tails)
    assert row["p_value"] is None


def test_what_one_training_run_cannot_say_is_underpowered_with_its_sentence(run):
    found = rows(run[1])
    assert (found["E-1"]["verdict"], found["E-2"]["verdict"]) == ("underpowered", "underpowered")
    assert "1 training run, needed 8" in found["E-1"]["explain"]
    assert "HEAVY training run" in found["E-2"]["explain"]
    assert "evenbits" not in found["E-4"]["explain"]


def test_correlations_within_models_have_size_interval_n_and_p(run):
    row = rows(run[1])["E-4"]
    assert row["estimate"]["n"] == 3  # layers of one run
    assert row["estimate"]["low"] <= row["estimate"]["value"] <= row["estimate"]["high"]
    assert 0 < row["p_value"] <= 1
    # so few families of languages leave resamples without any spread, and the interval open
    assert rows(run[1])["E-5"]["verdict"] == "underpowered"


def test_terminal_markdown_and_page_show_all_five(run):
    done, report, folder = run
    terminal = done.stdout[done.stdout.index(" evenbits ") :]
    assert re.findall(r"^(E-\d) ", terminal, flags=re.MULTILINE) == list(FINDINGS)
    assert "training run with checkpoints, needed 4" in report["verdicts"]["E-3"]["explain"]
    summary = (folder / "summary.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in summary for name in FINDINGS)
    from evenbits.report.html import html

    page = html(report)
    assert all(f'<span class="name">{name}</span>' in page for name in FINDINGS)
    assert "Outliers during training" in page  # the figure of E-3
    assert "cannot be drawn" not in page


def test_damage_heads_and_overlap_of_a_model_are_what_other_modules_measure(tiny_llama, store, texts):
    from evenbits.cells import Subject, measure_damage
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.observe.activations.lookup import activations
    from evenbits.studies.established import measure_damages, measure_heads
    from evenbits.text import load_corpus, split
    from evenbits.variants.quantization.spec import parse_spec

    probe, evaluation = split(load_corpus(f"dir:{texts}", languages="de,en,ga", store=store), seed=0)
    model = Subject(local=resolve(parse_model(str(tiny_llama)), store=store), store=store, dtype="float32")
    spec = parse_spec("int3-row+keep1%:magnitude")  # its keep is ignored
    found = measure_damages(model, spec, evaluation, probe)
    table = measure_damage(model, [parse_spec("int3-row")], evaluation)
    np.testing.assert_allclose(found.damage["excess_bits"], table.excess_bits("int3-row").mean(axis=1))
    np.testing.assert_allclose(found.damage["relative_increase"], table.relative_increase("int3-row"))
    assert found.tier == {"de": "high", "en": "high", "ga": "low"}
    heads = measure_heads(model, probe)
    sinks = [one.sink_mass for one in activations(model.loaded(), probe, store=store).values()]
    np.testing.assert_allclose(heads.sink, np.mean(sinks, axis=0))
    weights = model.weight_statistics()
    width = len(weights["model.layers.1.self_attn.o_proj"].column_kurtosis) // heads.sink.shape[1]
    assert heads.output_kurtosis[1, 1] == pytest.approx(
        weights["model.layers.1.self_attn.o_proj"].column_kurtosis[width : 2 * width].mean()
    )
    assert heads.query_kurtosis.shape == heads.sink.shape
