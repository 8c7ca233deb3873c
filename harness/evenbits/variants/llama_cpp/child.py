"""The process that holds llama.cpp: requests as JSON lines on stdin, answers on stdout, the library's log on stderr.

| Request                              | Answer                                                          |
|--------------------------------------|-----------------------------------------------------------------|
| (on starting)                        | engine, vocabulary, prefix token, description                   |
| {"logits": [ids], "last": n}         | {"rows": n, "columns": v}, then n x v float32, machine's order  |
| {"tokens": [texts]}                  | {"tokens": [[ids], ...]}                                        |
| {"text_of": id}                      | {"text": how the file writes that token, or null}               |

Whatever goes wrong is {"error": sentence}. Run as `python -m evenbits.variants.llama_cpp.child ARGUMENTS`, arguments
being one JSON object: library, file, context, kv, threads. The end of stdin ends it.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from evenbits.variants.llama_cpp.library import Library, LibraryError, OpenModel

__all__ = ["main"]


def main(arguments: dict[str, Any]) -> None:
    """Answer requests until stdin ends."""
    requests, answers = sys.stdin.buffer, _own_stdout()
    try:
        library = Library(Path(arguments["library"]))
        model = OpenModel(
            library,
            Path(arguments["file"]),
            context=arguments["context"],
            kv=arguments["kv"],
            threads=arguments["threads"],
        )
    except LibraryError as error:
        _answer(answers, {"error": str(error)})
        return
    _answer(
        answers,
        {
            "engine": asdict(library.engine()),
            "vocabulary": model.vocabulary,
            "prefix": model.prefix(),
            "description": model.description(),
        },
    )
    for line in requests:
        try:
            _serve(answers, model, json.loads(line))
        except LibraryError as error:
            _answer(answers, {"error": str(error)})
    model.close()


def _serve(answers: BinaryIO, model: OpenModel, request: dict[str, Any]) -> None:
    if "tokens" in request:
        _answer(answers, {"tokens": [model.tokens(text) for text in request["tokens"]]})
        return
    if "text_of" in request:
        _answer(answers, {"text": model.text_of(request["text_of"])})
        return
    rows = model.logits(request["logits"], request["last"])
    _answer(answers, {"rows": rows.shape[0], "columns": rows.shape[1]})
    answers.write(rows.data.cast("B"))
    answers.flush()


def _answer(answers: BinaryIO, content: dict[str, Any]) -> None:
    answers.write(json.dumps(content).encode() + b"\n")
    answers.flush()


def _own_stdout() -> BinaryIO:
    """Return the pipe to the parent, and send whatever the library prints to stderr instead."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return pipe


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
