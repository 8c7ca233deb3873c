"""Quiet: transformers' messages and bars kept from the terminal; its bars shown through our own progress instead."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from logging import ERROR, getLogger
from threading import RLock
from typing import Any, Self

from evenbits.progress import Progress, Silent, Task

__all__ = ["bars_of", "quiet_transformers"]

# Without this, tokenizers warns about forks once data sets or xdist start processes.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# transformers imports torchao where it is installed, which then complains of kernels for other machines, torch of it.
for _name in ("torchao", "torch.utils._pytree"):
    getLogger(_name).setLevel(ERROR)

# While it builds a model, transformers switches off tying and initialisation and sets torch's default dtype for the
# whole process: a second thread that loads meanwhile would get an untied head, or another dtype.
_ONE_THREAD = RLock()


class _Bridge:
    """What transformers believes to be a tqdm bar."""

    def __init__(self, progress: Progress, iterable: Iterable[Any] | None, total: int | None, description: str) -> None:
        if total is None and hasattr(iterable, "__len__"):
            total = len(iterable)  # type: ignore[arg-type]
        self._iterable = iterable if iterable is not None else ()
        self._stack = ExitStack()
        self._task: Task = self._stack.enter_context(progress.task(description, total))

    def __iter__(self) -> Iterator[Any]:
        with self._stack:
            for item in self._iterable:
                yield item
                self._task.advance()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        self._task.advance(n)

    def close(self) -> None:
        self._stack.close()

    def __getattr__(self, _name: str) -> Any:
        return lambda *_args, **_kwargs: None


def bars_of(progress: Progress) -> Callable[..., Any]:
    """Return what can stand in for the class `tqdm`: its bars are tasks of `progress`."""

    def bar(iterable: Iterable[Any] | None = None, **named: Any) -> _Bridge:
        return _Bridge(progress, iterable, named.get("total"), str(named.get("desc") or "Working").rstrip(": ."))

    return bar


@contextmanager
def quiet_transformers(progress: Progress | None = None) -> Iterator[None]:
    """Silence transformers' log and show its bars through `progress`; both are put back at the end.

    Only one thread at a time is let in, because what transformers does to build a model is seen by all of them.
    Messages that matter (missing and unexpected tensors) are checked by the caller and raised as errors.
    """
    from transformers.utils import logging

    with _ONE_THREAD:
        yield from _quiet(logging, bars_of(progress or Silent()))


def _quiet(logging: Any, bar: Callable[..., Any]) -> Iterator[None]:
    def hook(_factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Bridge:
        shown: _Bridge = bar(*args[:1], **kwargs)
        return shown

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    set_hook = getattr(logging, "set_tqdm_hook", None)  # absent before transformers 5.2: there, bars are just off
    logging.set_verbosity_error()
    previous = set_hook(hook) if set_hook else None
    if set_hook is None:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if set_hook:
            set_hook(previous)
        elif bars:
            logging.enable_progress_bar()
