"""How fast this machine is: the best of rounds in which all works take their turn, timed anew by every process."""

import evenbits.studies.speeds as module
import pytest
import torch
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.studies.speeds import FEW, MANY, best_of, product_seconds, speeds_of


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_of_each_work_the_shortest_time_counts_and_the_others_run_in_between():
    now, order = [0.0], []

    def job(name, *lengths):
        left = list(lengths)

        def run():
            order.append(name)
            now[0] += left.pop(0)

        return run

    found = best_of([job("a", 5.0, 2.0, 4.0), job("b", 1.0, 3.0, 9.0)], rounds=3, clock=lambda: now[0])
    assert found == [2.0, 1.0]  # a busy first round is forgotten
    assert order == ["a", "b"] * 3


def test_a_product_takes_something_for_each_token_and_something_however_few(monkeypatch):
    module._products.cache_clear()
    # 3 ms however few, .5 ms a token
    monkeypatch.setattr(
        module, "best_of", lambda jobs: [0.003 + 0.0005 * FEW, 0.003 + 0.0005 * MANY] * (len(jobs) // 2)
    )
    found = product_seconds({"64x32": 4.0}, dtype="float32", device="cpu")
    assert (found.token, found.call) == pytest.approx((4 * 0.0005, 4 * 0.003))
    half = module.MATRIX // 1024 // 2  # rows of which a quarter is timed
    tall = product_seconds({f"{8 * half}x1024": 1.0}, dtype="float32", device="cpu")
    assert (tall.token, tall.call) == pytest.approx((4 * 0.0005, 4 * 0.003))
    module._products.cache_clear()


def test_another_number_of_threads_is_timed_anew(threads, monkeypatch):
    timed = []
    monkeypatch.setattr(module, "best_of", lambda jobs: timed.append(len(jobs)) or [1.0] * len(jobs))
    module._products.cache_clear()
    for count in (1, 1, 2):
        threads(count)
        product_seconds({"16x16": 1.0}, dtype="float32", device="cpu")
    assert len(timed) == 2
    module._products.cache_clear()


def test_speeds_of_a_model_on_disk_are_timed_in_less_than_a_second(tiny_llama, store):
    import time

    local = resolve(parse_model(str(tiny_llama)), store=store)
    module._speeds.cache_clear()
    begun = time.thread_time()
    found = speeds_of(local, dtype="bfloat16", device="cpu")
    product_seconds({"2048x2048": 3.0, "512x2048": 2.0}, dtype="float32", device="cpu")
    assert time.thread_time() - begun < 1
    assert 1e-5 < found.python < 1  # seconds of compiling 120 lines
    assert found.read > 1e4
    assert found.rounded > found.weighed > 1e4  # statistics sort and take powers
