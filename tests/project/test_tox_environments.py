"""The tox environments of the model families: one table behind them, run from a local hub cache, and without a hub."""

import configparser
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import hub_cache
import pytest
from evenbits.families import families
from evenbits.models.references import parse_model
from evenbits.variants.quantization.spec import parse_specs

ROOT = Path(__file__).resolve().parents[2]
HUB = [name for name, one in families().items() if parse_model(one.models[0].model).kind == "hub"]
ARCHITECTURES = {
    "gpt2": "gpt2",
    "bloom": "bloom",
    "xglm": "xglm",
    "qwen3": "qwen3",
    "llama3": "llama",
    "gemma3": "gemma3_text",
    "smollm3": "smollm3",
    "pythia": "gpt_neox",
    "opt": "opt",
    "eurollm": "llama",
}


@pytest.fixture(scope="module")
def commands():
    """The command of each environment, as tox would run it without options of the user's."""
    names = ",".join([*families(), "train-reference"])
    shown = subprocess.run(
        [sys.executable, "-m", "tox", "config", "-e", names, "-k", "commands", "set_env", "--colored", "no"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"},
    )
    parsed = configparser.RawConfigParser()
    parsed.read_string(shown.stdout)
    return {name: parsed[f"testenv:{name}"] for name in [*families(), "train-reference"]}


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for tag in ("de", "en", "fr", "am", "ig", "yo"):
        lines = [f"{tag}: the inner thing an {number} says {tag * (1 + number % 3)}" for number in range(8)]
        (folder / f"{tag}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory, tiny_model):
    """A hub cache with a tiny model of the right architecture for every model of every family, at its revision."""
    folder = tmp_path_factory.mktemp("hub")
    for name in HUB:
        for place, one in enumerate(families()[name].models):
            ref = parse_model(one.model)
            pinned = ref.revision is not None and len(ref.revision) == len(hub_cache.COMMIT)
            hub_cache.put(
                folder,
                ref.location,
                tiny_model(ARCHITECTURES[name], hidden=64, layers=2),
                revision=ref.revision or "main",
                commit=ref.revision if pinned else f"{place:040x}",
            )
    return folder


@pytest.fixture
def run(commands, cache, texts, tmp_path):
    """`run(name, *options)`: an environment's command from another folder, with what a user writes behind `--`."""

    def started(name, *options, hub=cache):
        words = shlex.split(commands[name]["commands"])
        assert words[:2] == ["pytest", "evals"]
        chosen = (f"--corpus=dir:{texts}", "--languages=all", "--dtype=float32", *options)
        return subprocess.run(
            [sys.executable, "-m", "pytest", str(ROOT / "evals"), *words[2:], *chosen],
            cwd=tmp_path,
            text=True,
            capture_output=True,
            check=False,
            timeout=600,
            env={
                **os.environ,
                "HF_HUB_OFFLINE": "1",
                "HF_HUB_CACHE": str(hub),
                "COLUMNS": "200",
                "EVENBITS_STORE": str(tmp_path / "store"),
            },
        )

    return started


def test_every_family_has_an_environment_and_reports_into_a_folder_of_its_name(commands):
    assert set(ARCHITECTURES) == set(HUB)
    for name in families():
        workers = " -n 2 --dist loadgroup" if name == "reference" else ""
        assert commands[name]["commands"] == f"pytest evals --family {name} --advisory --report=reports/{name}{workers}"
        assert f"HF_HUB_OFFLINE={0 if name in HUB else 1}" in commands[name]["set_env"]
    assert commands["train-reference"]["commands"] == "python -m evenbits.fixtures.reference.training.train list"


def test_without_the_hub_an_environment_ends_with_one_sentence_and_exit_2(run, tmp_path):
    done = run("gpt2", hub=tmp_path / "empty")
    assert done.returncode == 2
    said = [line for line in (done.stdout + done.stderr).splitlines() if "evenbits: " in line]
    assert len(said) == 1
    assert "openai-community/gpt2" in said[0]
    assert "not in the local Hugging Face cache, and downloads are switched off" in said[0]
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize("name", HUB)
def test_every_model_of_a_family_is_found_in_a_local_cache_and_takes_its_specs(name, cache, store, monkeypatch):
    from evenbits.cells import Subject
    from evenbits.models.sources import resolve
    from evenbits.variants.registry import bits_of
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    for one in families()[name].models:
        local = resolve(parse_model(one.model), store=store, offline=True)
        for spec in parse_specs(",".join(families()[name].spec)):
            assert 3 < bits_of(spec, Subject(local=local, store=store)) < 5


@pytest.mark.parametrize(
    ("name", "options", "verdicts"),
    [
        ("gpt2", ("-k", "pattern_is_clear"), {"H-037"}),
        pytest.param("gemma3", (), {"H-036", "H-037", "H-039"}, marks=pytest.mark.slow),
    ],
)
def test_an_environment_runs_from_a_local_cache(name, options, verdicts, run, tmp_path):
    done = run(name, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "reports" / name / "report.json").read_text(encoding="utf-8"))
    assert [entry["text"] for entry in report["inputs"]["models"]] == [one.model for one in families()[name].models]
    assert verdicts <= set(report["verdicts"])
    assert not [row["explain"] for row in report["measurements"] if row["verdict"] == "error"]
