"""kill -9 at random moments: the run that follows gives the numbers of an undisturbed one, and leaves nothing half."""

from __future__ import annotations

import json
import os
import random
import signal
import time

import fault_campaign as campaign
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def work(tiny_model, tmp_path_factory):
    return campaign.Work(tmp_path_factory.mktemp("kills"), tiny_model("llama", layers=3, hidden=64))


def command_of(work, name, store, report):
    return work.damage(store) if name == "damage" else getattr(work, name)(store, report)


def result_of(name, out, report):
    return json.loads(out) if name == "damage" else campaign.numbers(report)


@pytest.mark.parametrize("name", ["damage", "run", "gate"])
def test_a_killed_run_costs_nothing_but_its_time(work, name, tmp_path):
    began = time.monotonic()
    whole = campaign.finished(campaign.start(command_of(work, name, tmp_path / "whole", tmp_path / "report")))
    took = time.monotonic() - began
    assert whole[0] in {0, 1}  # the gate may not let so little text through: then it must say so every time
    expected = result_of(name, whole[1], tmp_path / "report")
    rng = random.Random(name)  # noqa: S311 - moments, not secrets
    for place in range(campaign.ROUNDS):
        store, report = tmp_path / f"store-{place}", tmp_path / f"report-{place}"
        for _ in range(2):  # killed, and killed again while it resumes
            process = campaign.start(command_of(work, name, store, report))
            time.sleep(rng.uniform(0, took))
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        code, out, _ = campaign.finished(campaign.start(command_of(work, name, store, report)))
        assert code == whole[0]
        assert result_of(name, out, report) == expected, f"round {place}"
        assert campaign.parts(store) == []


def test_three_runs_at_once_on_one_store_give_the_same_numbers(work, tmp_path):
    _, expected, _ = campaign.finished(campaign.start(work.damage(tmp_path / "alone")))
    together = [campaign.start(work.damage(tmp_path / "shared")) for _ in range(3)]
    for process in together:
        code, out, _ = campaign.finished(process)
        assert (code, json.loads(out)) == (0, json.loads(expected))
    assert campaign.parts(tmp_path / "shared") == []
