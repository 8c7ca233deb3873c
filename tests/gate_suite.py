"""A suite that runs the deployment gate on stored damage instead of a model: quick, with everything else as it is."""

import datetime as dt
import json
from pathlib import Path

TODAY = dt.datetime.now(dt.UTC).date()

EVALS = Path(__file__).resolve().parents[1] / "evals" / "test_deployment_gate.py"

LOADING = """
import json
import os
from pathlib import Path
import pytest
from evenbits.records import Corpus
from evenbits.plugins import PLUGINS
pytest_plugins = [name for name in PLUGINS if name != "evenbits.fixtures.preparation"]  # there is no model to prepare

from evenbits.fixtures.gate import GateDamage

ROWS = json.loads((Path(__file__).parent / "rows.json").read_text(encoding="utf-8"))

@pytest.fixture(scope="session")
def model(request, contribute):
    contribute("models", {"text": request.param.text, "digest": "0f", "exposure": ROWS.get("exposure")})
    return request.param

@pytest.fixture(scope="session")
def spec(request, contribute):
    contribute("specs", {"text": str(request.param), "digest": "f0"})
    return request.param

@pytest.fixture(scope="session")
def corpus(settings, contribute) -> Corpus:
    tags = tuple(sorted(settings.languages.split(",")))
    texts = {tag: ("one", "two", "three", "four") for tag in tags}
    text = Corpus(name="t", source="t", languages=tags, segment_ids=("a", "b", "c", "d"), texts=texts)
    languages = [{"tag": tag, "name": tag, "script": "Latn", "family": "x", "tier": None} for tag in tags]
    contribute("corpus", {"text": "dir:t", "digest": text.digest, "languages": languages})
    return text

@pytest.fixture(scope="session")
def gate_damage(model, spec, corpus, contribute) -> GateDamage:
    def measure(languages):
        if "sw" in languages and "crash" in ROWS:
            os._exit(3)
        rows = [{**ROWS[tag], "model": model.text, "spec": str(spec)} for tag in languages if tag in ROWS]
        contribute("damage", rows)
        return rows
    return GateDamage(measure=measure, exposure=ROWS.get("exposure"))
"""


def damage_row(tag, value, width=1.0):
    """Return the damage row of `tag`: `value` +- `width` excess bits per segment over twelve segments."""
    excess = {"value": value, "low": value - width, "high": value + width, "n": 12, "method": "BCa", "reason": None}
    return {
        "language": tag,
        "segments": 12,
        "tokens": 99,
        "utf8_bytes": 300,
        "nll_full": 5.0,
        "nll_quantized": 6.0,
        "excess_bits": excess,
        "relative_increase": excess,
        "rms_delta_p": 0.1,
        "kl_nats_per_token": {"mean": 0.1, "p50": 0.1, "p99": None},
        "top1_changed": 0.5,
        "bits_per_weight": 4.25,
        "excess_bits_by_segment": 3 * [value - width, value - width / 4, value + width / 4, value + width],
    }


def prepare(pytester, rows, policy):
    """Write the suite, its stored rows by language and its policy into the folder of `pytester`."""
    pytester.makeconftest(LOADING)
    pytester.makepyprojecttoml('[tool.evenbits]\nreport = "out"\n')
    pytester.makepyfile(test_deployment_gate=EVALS.read_text(encoding="utf-8"))
    (pytester.path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    (pytester.path / "policy.toml").write_text(policy, encoding="utf-8")
