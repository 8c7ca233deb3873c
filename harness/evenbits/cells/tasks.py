"""lm-evaluation-harness's tasks as damage: full precision against each spec on the same documents, paired.

Multiple choice is a coarser ruler than excess bits (most answers do not flip), but it is the one that people read. A
document answered rightly by one model alone is what carries information; McNemar's test counts those.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from evenbits.cells.subject import Subject
from evenbits.errors import NotApplicableError, UsageError
from evenbits.estimates import Estimate
from evenbits.statistics import mean_interval
from evenbits.variants.registry import Spec, variant_of
from evenbits.variants.variant import FULL_PRECISION, Variant

__all__ = ["TaskDamage", "compare_documents", "language_of", "measure_tasks"]

SCHEMA = 1
"""Raised whenever the same task would be scored otherwise."""

METRICS = ("acc", "exact_match", "em", "f1")

Scores = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskDamage:
    """One task under one spec: mean scores in [0, 1] over `documents`, and their paired difference.

    `difference`: mean of score(spec) - score(full), with a bootstrap interval over documents; below 0 is a loss.
    `lost`, `gained`: documents answered rightly by full precision alone, by the spec alone. `p`: McNemar's exact
    two-sided test of their balance. `language`: tag found in the task's name, None where it names none.
    """

    task: str
    spec: str
    language: str | None
    metric: str
    documents: int
    full: float
    quantized: float
    difference: Estimate
    lost: int
    gained: int
    p: float

    @property
    def recovery(self) -> float | None:
        """What model cards call recovery: the spec's score in per cent of full precision's."""
        return None if self.full == 0 else 100 * self.quantized / self.full

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "spec": self.spec,
            "language": self.language,
            "metric": self.metric,
            "documents": self.documents,
            "full": self.full,
            "quantized": self.quantized,
            "difference": self.difference.to_json(),
            "lost": self.lost,
            "gained": self.gained,
            "mcnemar_p": self.p,
            "recovery_percent": self.recovery,
        }


def compare_documents(
    full: Scores, quantized: Scores, *, task: str, spec: str, metric: str, rng: np.random.Generator
) -> TaskDamage:
    """Return the damage of a task from the scores of the same documents, in the same order.

    `ValueError` where they are not as many. Scores that are neither 0 nor 1 count as right from .5 on, for `lost` and
    `gained` only.
    """
    if full.shape != quantized.shape or not len(full):
        raise ValueError(f"{task}: {len(full)} documents under full precision, {len(quantized)} under {spec}")
    right, now = full >= 0.5, quantized >= 0.5
    lost, gained = int((right & ~now).sum()), int((~right & now).sum())
    return TaskDamage(
        task=task,
        spec=spec,
        language=language_of(task),
        metric=metric,
        documents=len(full),
        full=float(full.mean()),
        quantized=float(quantized.mean()),
        difference=mean_interval(quantized - full, rng=rng),
        lost=lost,
        gained=gained,
        p=float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0,
    )


def language_of(task: str) -> str | None:
    """Return the language that a task's name ends in: `belebele_deu_Latn` -> de, `xnli_sw` -> sw, `piqa` -> None."""
    import langcodes

    parts = task.split("_")
    for count in (3, 2, 1):
        tail = parts[-count:]
        code = re.fullmatch(r"[a-z]{2,3}", tail[0])
        if len(parts) <= count or code is None or not all(re.fullmatch(r"[A-Z][a-z]{3}|[A-Z]{2}", p) for p in tail[1:]):
            continue
        if langcodes.tag_is_valid("-".join(tail)):
            return str(langcodes.standardize_tag("-".join(tail)))
    return None


def measure_tasks(
    subject: Subject,
    specs: Sequence[Spec],
    tasks: Sequence[str],
    *,
    include: Path | None = None,
    limit: int | None = None,
) -> list[TaskDamage]:
    """Run lm-eval's `tasks` on full precision and on every spec, and return what each loses in each task.

    `include`: folder of task files; with it lm-eval's own index is not built, which takes seconds, unless a name is not
    found there. `limit`: at most so many documents of each task. Scores by document are kept in the store: of the same
    model, spec, task files and lm-eval they are not computed again; lm-eval's own cache is not used.

    `UsageError` for unknown tasks; `NotApplicableError` for what lm-eval cannot run, since it runs models in torch.
    """
    full = _scores(subject, FULL_PRECISION, tasks, include, limit)
    found = []
    for spec in specs:
        changed = _scores(subject, variant_of(spec, subject), tasks, include, limit)
        for name, (metric, before) in full.items():
            rng = np.random.default_rng(subject.seed)
            found.append(compare_documents(before, changed[name][1], task=name, spec=str(spec), metric=metric, rng=rng))
    return found


def _scores(
    subject: Subject, variant: Variant, tasks: Sequence[str], include: Path | None, limit: int | None
) -> dict[str, tuple[str, Scores]]:
    """Return metric and score by document, for every task."""
    key = {
        "schema": SCHEMA,
        "model": subject.local.fingerprint,
        "variant": dict(variant.key),
        "dtype": variant.dtype or subject.dtype,
        "tasks": list(tasks),
        "files": _digest(include),
        "limit": limit,
        "lm_eval": version("lm_eval"),
    }

    def compute() -> tuple[Mapping[str, Scores], Mapping[str, Any]]:
        measured = _run(subject, variant, tasks, include, limit)
        return {name: scores for name, (_, scores) in measured.items()}, {
            "metrics": {name: metric for name, (metric, _) in measured.items()}
        }

    entry = subject.store.compute("tasks", key, compute)
    return {name: (entry.meta["metrics"][name], entry.arrays[name]) for name in sorted(entry.meta["metrics"])}


def _run(
    subject: Subject, variant: Variant, tasks: Sequence[str], include: Path | None, limit: int | None
) -> dict[str, tuple[str, Scores]]:
    evaluator: Any = import_module("lm_eval.evaluator")
    models: Any = import_module("lm_eval.models.huggingface")
    manager = _manager(tasks, include)
    with subject.progress.task(f"{subject.local.text}  {variant.label}  tasks"), variant.open(subject) as scorer:
        loaded = getattr(scorer, "loaded", None)
        if loaded is None:
            raise NotApplicableError(
                f"{variant.label} is not run by torch, and lm-eval's tasks are: measure its excess bits instead"
            )
        results = evaluator.simple_evaluate(
            model=models.HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=8),
            tasks=list(tasks),
            task_manager=manager,
            limit=limit,
            bootstrap_iters=0,
            use_cache=None,
            log_samples=True,
            verbosity="ERROR",
        )
    found = {}
    for name, samples in results["samples"].items():
        first = samples[0].get("filter", "none")
        ordered = sorted(
            (sample for sample in samples if sample.get("filter", "none") == first),
            key=lambda sample: int(sample["doc_id"]),
        )
        metric = next((metric for metric in METRICS if metric in ordered[0]), None)
        if metric is None:
            raise UsageError(f"task {name} has none of the metrics {', '.join(METRICS)} by document")
        found[name] = (metric, np.asarray([float(sample[metric]) for sample in ordered]))
    return found


def _manager(tasks: Sequence[str], include: Path | None) -> Any:
    """Return lm-eval's index: of the folder alone where all names are there, else of its own tasks too."""
    index: Any = import_module("lm_eval.tasks")
    if include is not None:
        if not include.is_dir():
            raise UsageError(f"there is no folder {include} of task files")
        alone = index.TaskManager(include_path=str(include), include_defaults=False)
        if all(alone.match_tasks([name]) for name in tasks):
            return alone
    whole = index.TaskManager(include_path=None if include is None else str(include))
    unknown = [name for name in tasks if not whole.match_tasks([name])]
    if unknown:
        raise UsageError(f"lm-eval knows no task {', '.join(unknown)}; `lm_eval ls tasks` lists them")
    return whole


def _digest(include: Path | None) -> str | None:
    """Return what identifies the files of a task folder, by name and content."""
    if include is None:
        return None
    state = hashlib.sha256()
    for file in _files(include):
        state.update(str(file.relative_to(include)).encode())
        state.update(hashlib.sha256(file.read_bytes()).digest())
    return state.hexdigest()


def _files(include: Path) -> Iterator[Path]:
    if not include.is_dir():
        raise UsageError(f"there is no folder {include} of task files")
    yield from sorted(file for file in include.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
