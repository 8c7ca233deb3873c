"""kill -9 at random moments: the run that follows gives the numbers of an undisturbed one, and leaves nothing half."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time

import fault_campaign as campaign
import pytest

pytestmark = pytest.mark.slow

COMMANDS = ("damage", "run", "gate")
KILLS = 4
"""Kills in a row before a run may end: those after the first fall into resumed ones."""


@pytest.fixture(scope="module")
def work(tiny_model, tmp_path_factory):
    work = campaign.Work(tmp_path_factory.mktemp("kills"), tiny_model("llama", layers=3, hidden=64))
    campaign.finished(campaign.start(["--version"], work.root))  # imports are no part of what is timed below
    return work


def command_of(work, name, store, report):
    return work.damage(store) if name == "damage" else getattr(work, name)(store, report)


def result_of(name, out, report):
    return json.loads(out) if name == "damage" else campaign.numbers(report)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_run_costs_nothing_but_its_time(work, name, tmp_path, record_testsuite_property):
    began = time.monotonic()
    whole = campaign.finished(campaign.start(command_of(work, name, tmp_path / "whole", tmp_path / "report"), tmp_path))
    took = time.monotonic() - began
    assert whole[0] in {0, 1}  # the gate may not let so little text through: then it must say so every time
    expected = result_of(name, whole[1], tmp_path / "report")
    rng = random.Random(name)  # noqa: S311 - moments, not secrets
    interrupted = 0
    for place in range(campaign.share(KILLS * len(COMMANDS))):
        round_ = tmp_path / f"round-{place}"
        command = command_of(work, name, round_ / "store", round_ / "report")
        for _ in range(KILLS):
            running = campaign.start(command, round_)
            time.sleep(rng.uniform(0, took))
            running.kill()
            interrupted += running.process.exitcode == -signal.SIGKILL
        code, out, _ = campaign.finished(campaign.start(command, round_))
        assert code == whole[0]
        assert result_of(name, out, round_ / "report") == expected, f"round {place}"
        assert campaign.parts(round_ / "store") == []
        shutil.rmtree(round_)
    record_testsuite_property(f"{name}: runs interrupted", interrupted)
    assert interrupted  # a kill that comes after the end disturbs nothing


def test_three_runs_at_once_on_one_store_give_the_same_numbers(work, tmp_path):
    _, expected, _ = campaign.finished(campaign.start(work.damage(tmp_path / "alone"), tmp_path / "first"))
    for place in range(campaign.share(20)):
        store = tmp_path / f"shared-{place}"
        together = [campaign.start(work.damage(store), tmp_path / f"{place}-{one}") for one in range(3)]
        for running in together:
            code, out, _ = campaign.finished(running)
            assert (code, json.loads(out)) == (0, json.loads(expected))
        assert campaign.parts(store) == []
