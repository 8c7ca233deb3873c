"""The device that is checked, and time taken on it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path.append(str(TESTS))  # what tests share: no pytest starts this

DEVICE = os.environ.get("EVENBITS_CHECK_DEVICE", "cuda")
"""`cpu` rehearses everything with little text and a small model in the large one's place; its figures mean nothing."""
REHEARSED = DEVICE == "cpu"


def waited() -> None:
    """Let the GPU finish."""
    import torch

    if not REHEARSED:
        torch.cuda.synchronize()


def timed(work: Callable[[], Any], *, rounds: int) -> float:
    """Return the median seconds of `work`, after one round that does not count."""
    seconds = []
    for number in range((1 if REHEARSED else rounds) + 1):
        waited()
        begin = time.perf_counter()
        work()
        waited()
        if number:
            seconds.append(time.perf_counter() - begin)
    return sorted(seconds)[len(seconds) // 2]
