"""A GGUF file run by llama.cpp in a process of its own: its crash is an error of ours, never ours to crash with."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from evenbits.errors import EngineError
from evenbits.variants.llama_cpp.library import KV_TYPES, Engine, LibraryError, find_library

__all__ = ["GgufEngine", "engine_here"]

LOG_LINES = 3


class GgufEngine:
    """llama.cpp with `path` open, until closed.

    `context`: most tokens of a window. `kv`: type of the key-value cache, `f16` as deployed, `f32` for agreement with
    float32 elsewhere. `threads`: of llama.cpp. `library`: file or folder; by default $EVENBITS_LLAMA_CPP, else
    llama-cpp-python's.

    Raises `EngineError` where there is no library, where it refuses the file, and when it dies.
    """

    def __init__(self, path: Path, *, context: int, threads: int, kv: str = "f16", library: str | None = None) -> None:
        if kv not in KV_TYPES:
            raise EngineError(f"a key-value cache of type {kv!r} is not known: one of {', '.join(KV_TYPES)}")
        self.path = path
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        arguments = {
            "library": str(_found(library)),
            "file": str(path.absolute()),
            "context": context,
            "kv": kv,
            "threads": threads,
        }
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "evenbits.variants.llama_cpp.child", json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        try:
            hello = self._answer(f"opening {path}")
        except BaseException:
            self.close()
            raise
        self.engine = Engine(**hello["engine"])
        self.vocabulary = int(hello["vocabulary"])
        self.prefix: int | None = hello["prefix"]
        self.description = str(hello["description"])

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the file's own tokens of each text, without special tokens."""
        found: list[list[int]] = self._ask({"tokens": list(texts)}, "tokenizing")["tokens"]
        return found

    def text_of(self, token: int) -> str | None:
        """Return how the file writes `token`; None where it has no such token."""
        found: str | None = self._ask({"text_of": token}, "looking up a token")["text"]
        return found

    def logits(self, ids: Sequence[int], last: int) -> NDArray[np.float32]:
        """Return the logits after each of the `last` tokens of `ids`, shape (last, vocabulary)."""
        what = f"scoring a window of {len(ids)} tokens"
        answer = self._ask({"logits": [int(token) for token in ids], "last": last}, what)
        rows = np.empty((answer["rows"], answer["columns"]), dtype=np.float32)
        view = rows.data.cast("B")
        stdout = self._stream(self._process.stdout)
        read = 0
        while read < len(view):
            count = stdout.readinto(view[read:])
            if not count:
                raise self._died(what)
            read += count
        return rows

    def close(self) -> None:
        """End the process; whatever is asked afterwards is an error."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: dict[str, Any], what: str) -> dict[str, Any]:
        stdin = self._stream(self._process.stdin)
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise self._died(what) from None
        return self._answer(what)

    def _answer(self, what: str) -> dict[str, Any]:
        line = self._stream(self._process.stdout).readline()
        if not line.endswith(b"\n"):
            raise self._died(what)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineError(f"{answer['error']} ({what}){self._said()}")
        return answer

    def _died(self, what: str) -> EngineError:
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return EngineError(
            f"llama.cpp died ({how}) while {what} of {self.path.name}; the rest of the run goes on without it. "
            f"Try another build of llama.cpp (EVENBITS_LLAMA_CPP){self._said()}"
        )

    def _said(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return f". Its last words: {' / '.join(lines[-LOG_LINES:])}" if lines else ""

    @staticmethod
    def _stream(stream: Any) -> Any:
        assert stream is not None  # noqa: S101 - both pipes were asked for
        return stream


def _found(library: str | None) -> Path:
    try:
        return find_library(library)
    except LibraryError as error:
        raise EngineError(f"{error}.") from None


def engine_here(library: str | None = None) -> Engine:
    """Return the engine that would run a file here: what stands in the key of its cells. Asks a child process."""
    code = (
        "import json,sys; from dataclasses import asdict; from pathlib import Path; "
        "from evenbits.variants.llama_cpp.library import engine_at; "
        "sys.stderr.write(''); print(json.dumps(asdict(engine_at(Path(sys.argv[1])))))"
    )
    command = [sys.executable, "-c", code, str(_found(library))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603 - ours
    except subprocess.TimeoutExpired:
        raise EngineError("llama.cpp cannot be loaded here: it did not say its version in two minutes") from None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise EngineError(f"llama.cpp cannot be loaded here: {last[0]}")
    return Engine(**json.loads(done.stdout.strip().splitlines()[-1]))
