"""Benchmarks compare two programs in one run: rounds are interleaved, so that drift of the machine hits both."""

from __future__ import annotations

import time

import pytest


def pytest_configure(config):
    config.addinivalue_line("markers", "bench: compares speed or memory with a peer; wants a quiet machine")


def pytest_collection_modifyitems(config, items):
    """Benchmarks run when they are asked for: a busy machine would make them fail, and they make it busy."""
    if "bench" in (config.option.markexpr or ""):
        return
    for item in items:
        if item.get_closest_marker("bench"):
            item.add_marker(pytest.mark.skip(reason="a benchmark: run it alone with -m bench"))


@pytest.fixture
def interleaved(benchmark):
    """`interleaved(contenders, rounds=, main=)` -> seconds of every round by name.

    `contenders` maps names to functions without arguments. Each round runs all of them, one after the other; `main` is
    the one that pytest-benchmark reports, the others' times go to its `extra_info`.
    """

    def run(contenders, *, rounds, main):
        seconds = {name: [] for name in contenders}

        def others():
            for name, function in contenders.items():
                if name != main:
                    began = time.perf_counter()
                    function()
                    seconds[name].append(time.perf_counter() - began)

        def timed():
            began = time.perf_counter()
            contenders[main]()
            seconds[main].append(time.perf_counter() - began)

        benchmark.pedantic(timed, setup=others, rounds=rounds, iterations=1)
        benchmark.extra_info.update({name: [round(value, 3) for value in times] for name, times in seconds.items()})
        return seconds

    return run
