"""What `check.sh` runs: a GPU against the CPU, every eval on a reference model, and the speeds and memory of DESIGN.

Each part writes its figures as soon as it has them; a part that fails leaves its error, and the next one runs.
"""

from __future__ import annotations

import gc
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compared import compare_with_cpu, every_eval, every_type, spread_and_whole
from speeds import (
    beside_lm_eval,
    large_model,
    rounding_beside_libraries,
    speed_of_a_sweep,
    speed_of_rounding,
    speed_of_scoring,
    speed_on_a_cpu_with_matrix_units,
)

LANGUAGES = ("ar", "bg", "de", "el", "es", "fi", "fr", "hu", "id", "ja", "pl", "ro", "ru", "sv", "tr", "uk")
SEGMENTS = 24
EVALS_SECONDS = 70.0
"""Kept for the evals, which come last; told and run they took 57 s on an H200."""
COMPARED = ("cuda_and_cpu", "spread_and_experts", "types", "evals")
"""Parts that are wrong, not slow, where they miss what they are held to."""


def write_text(folder: Path) -> None:
    """Write a few of Django's messages in many languages, a file each, for `dir:`."""
    from evenbits.text import load_corpus

    corpus = load_corpus("gettext", languages=LANGUAGES)
    longest = sorted(range(len(corpus)), key=lambda place: -len(corpus.texts[LANGUAGES[0]][place]))
    chosen = corpus.select(indices=tuple(sorted(longest[: 3 * SEGMENTS : 3])))
    folder.mkdir(parents=True)
    for tag in chosen.languages:
        lines = [" ".join(text.split()) for text in chosen.texts[tag]]
        (folder / f"{tag}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` in what takes longer than `seconds`."""

    def stop(*_signal: Any) -> None:
        raise TimeoutError(f"took longer than the {seconds:.0f} s that were left for it")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main(text: Path, out: Path, seconds: float) -> int:
    """Run every part within `seconds`; return 0 where all came to an end and no number or verdict was wrong.

    A speed or a peak that misses its target is listed in `missed`, and no failure of this script.
    """
    end = time.monotonic() + seconds
    texts = {file.stem: file.read_text(encoding="utf-8").splitlines() for file in sorted(text.glob("*.txt"))}
    found: dict[str, Any] = {"failed": {}, "wrong": [], "missed": []}

    def part(name: str, work: Callable[[], dict[str, Any]], *, least: float, later: float = EVALS_SECONDS) -> None:
        left = end - time.monotonic() - later
        if left < least:
            found["failed"][name] = "no time was left for it"
            return
        begin = time.perf_counter()
        try:
            with at_most(left):
                found[name] = work() | {"part_seconds": time.perf_counter() - begin}
        except Exception:  # noqa: BLE001 - the other parts are to run whatever happened to this one
            found["failed"][name] = traceback.format_exc()[-4000:]
        if not all(value for key, value in found.get(name, {}).items() if key.startswith("reached")):
            found["wrong" if name in COMPARED else "missed"].append(name)
        out.write_text(json.dumps(found, indent=1), encoding="utf-8")
        told = json.dumps(found.get(name, found["failed"].get(name)), indent=1)
        sys.stdout.write(f"{name} {told[:6000]}\n")
        sys.stdout.flush()

    kept: list[Any] = []

    def large(work: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        if not kept:
            kept.append(large_model())
        return work(kept[0])

    part("cuda_and_cpu", lambda: compare_with_cpu(texts), least=10)
    part("spread_and_experts", lambda: spread_and_whole(texts), least=10)
    part("types", every_type, least=10)
    part("scoring_8b", lambda: large(lambda loaded: speed_of_scoring(loaded, texts)), least=30)
    part("rounding_8b", lambda: large(speed_of_rounding), least=10)
    part("rounding_beside_libraries", lambda: large(rounding_beside_libraries), least=10)
    part("sweep_8b", lambda: large(lambda loaded: speed_of_a_sweep(loaded, texts)), least=10)
    part("lm_eval_8b", lambda: large(lambda loaded: beside_lm_eval(loaded, texts)), least=20)
    kept.clear()
    gc.collect()
    part("scoring_amx", lambda: speed_on_a_cpu_with_matrix_units(texts), least=20)
    part("evals", lambda: every_eval(text, out, end - time.monotonic() - 5), least=20, later=0)
    sys.stdout.write(json.dumps({name: found[name] for name in ("failed", "wrong", "missed")}, indent=1) + "\n")
    return 1 if found["failed"] or found["wrong"] else 0


if __name__ == "__main__":
    if sys.argv[1] == "text":
        write_text(Path(sys.argv[2]))
    else:
        raise SystemExit(main(Path(sys.argv[2]).resolve(), Path(sys.argv[3]).resolve(), float(sys.argv[4])))
