"""lm-evaluation-harness's tasks as damage: full precision against each spec on the same documents, paired.

Multiple choice is a coarser ruler than excess bits (most answers do not flip), but it is the one that people read. A
document answered rightly by one model alone is what carries information; McNemar's test counts those.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from evenbits.cells.subject import Subject
from evenbits.errors import NotApplicableError, UsageError
from evenbits.estimates import Estimate
from evenbits.rows import Row
from evenbits.statistics import mean_interval, paired_proportions
from evenbits.variants.registry import Spec, variant_of
from evenbits.variants.variant import FULL_PRECISION, Variant, full_beside, in_dtype

__all__ = ["Answers", "TaskDamage", "Tasks", "compare_documents", "language_of", "measure_tasks"]

NO_LANGUAGE = ("agieval_lsat_ar",)
"""Tasks whose names end as those of a language do: analytical reasoning, in English."""

SCHEMA = 1
"""Raised whenever the same task would be scored otherwise."""

METRICS = ("acc", "exact_match", "em", "f1")

Scores = NDArray[np.float64]


class AsksForTasks(Protocol):
    """What was typed: the three options."""

    @property
    def tasks(self) -> tuple[str, ...]: ...

    @property
    def task_folder(self) -> Path | None: ...

    @property
    def task_limit(self) -> int | None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Tasks:
    """What of lm-eval is asked for: tasks, groups or patterns by `names`.

    `folder`: task files of one's own; with it lm-eval's own index is not built, which takes seconds, unless a name is
    not found there. `limit`: at most so many documents of each task.
    """

    names: tuple[str, ...]
    folder: Path | None = None
    limit: int | None = None

    @classmethod
    def of(cls, asked: AsksForTasks) -> Self | None:
        """Return what the options ask for, None where they name no task."""
        names = asked.tasks
        return cls(names=names, folder=asked.task_folder, limit=asked.task_limit) if names else None


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskDamage(Row):
    """One task, or all of a language, under one spec: mean scores in [0, 1] over `documents`, and what was lost.

    `loss`: mean of score(full) - score(spec) over documents, above 0 where the spec is worse, with its interval.
    `lost`, `gained`: documents answered rightly by full precision alone, by the spec alone. `p`: McNemar's exact
    two-sided test of their balance. `scores`: by document, of full precision and of the spec.
    """

    task: str
    spec: str
    language: str | None
    metric: str
    documents: int
    full: float
    quantized: float
    loss: Estimate
    lost: int
    gained: int
    p: float
    scores: tuple[Scores, Scores] = field(repr=False, compare=False)

    KEYS: ClassVar[Mapping[str, str]] = {"p": "mcnemar_p"}

    @property
    def recovery(self) -> float | None:
        """What model cards call recovery: the spec's score in per cent of full precision's."""
        return None if self.full == 0 else 100 * self.quantized / self.full

    def to_json(self) -> dict[str, Any]:
        return Row.to_json(self) | {"recovery_percent": self.recovery}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What every spec loses in every task. `refused`: why, by spec, of those that no task was run on."""

    rows: tuple[TaskDamage, ...]
    refused: Mapping[str, str] = field(default_factory=dict)

    def of(self, spec: str, language: str, *, seed: int) -> dict[str, Any] | None:
        """Return what a damage row says: all documents of the language's tasks together, and each task under `of`.

        None where no task is in that language.
        """
        if spec in self.refused:
            return {"task": None, "documents": 0, "loss": Estimate.undefined(self.refused[spec]).to_json(), "of": []}
        mine = [row for row in self.rows if (row.spec, row.language) == (spec, language)]
        if not mine:
            return None
        full, quantized = (np.concatenate([row.scores[side] for row in mine]) for side in (0, 1))
        whole = compare_documents(
            full,
            quantized,
            task=" + ".join(row.task for row in mine),
            spec=spec,
            metric=" + ".join(dict.fromkeys(row.metric for row in mine)),
            language=language,
            rng=np.random.default_rng(seed),
        ).to_json()
        return whole | {"of": [row.to_json() for row in mine]}


def compare_documents(
    full: Scores,
    quantized: Scores,
    *,
    task: str,
    spec: str,
    metric: str,
    language: str | None,
    rng: np.random.Generator,
) -> TaskDamage:
    """Return the damage of a task from the scores of the same documents, in the same order.

    `ValueError` where they are not as many. Scores that are neither 0 nor 1 count as right from .5 on, for `lost` and
    `gained` only.
    """
    from scipy.stats import binomtest

    if full.shape != quantized.shape or not len(full):
        raise ValueError(f"{task}: {len(full)} documents under full precision, {len(quantized)} under {spec}")
    right, now = full >= 0.5, quantized >= 0.5
    lost, gained = int((right & ~now).sum()), int((~right & now).sum())
    return TaskDamage(
        task=task,
        spec=spec,
        language=language,
        metric=metric,
        documents=len(full),
        full=float(full.mean()),
        quantized=float(quantized.mean()),
        loss=_loss(full, quantized, lost, gained, rng),
        lost=lost,
        gained=gained,
        p=float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0,
        scores=(full, quantized),
    )


def _loss(full: Scores, quantized: Scores, lost: int, gained: int, rng: np.random.Generator) -> Estimate:
    """Return the mean loss with the wider interval of the bootstrap over documents and, of right and wrong, Bonett's.

    Few answers flip, and a bootstrap of none or of three knows nothing of the next: it would pass what nobody tried.
    """
    drawn = mean_interval(full - quantized, rng=rng)
    if not np.isin([full, quantized], (0.0, 1.0)).all():
        return drawn
    counted = paired_proportions(lost, gained, len(full))
    bounds = [one for one in (drawn, counted) if one.low is not None and one.high is not None]
    return Estimate(
        value=drawn.value,
        low=min(float(one.low) for one in bounds if one.low is not None),
        high=max(float(one.high) for one in bounds if one.high is not None),
        n=len(full),
        method="mean loss per document; the wider of bootstrap-t and Bonett-Price, 95% interval",
    )


def language_of(task: str) -> str | None:
    """Return the language that a task's name ends in: `belebele_deu_Latn` -> de, `xnli_sw` -> sw, `piqa` -> None.

    A code alone counts only where the table of languages has it: `mmlu_professional_law` is in no language called Law.
    """
    import langcodes

    from evenbits.text.languages import known_languages, normalise

    if task in NO_LANGUAGE:
        return None

    parts = task.split("_")
    for count in (3, 2, 1):
        tail = parts[-count:]
        code = re.fullmatch(r"[a-z]{2,3}", tail[0])
        if len(parts) <= count or code is None or not all(re.fullmatch(r"[A-Z][a-z]{3}|[A-Z]{2}", p) for p in tail[1:]):
            continue
        if langcodes.tag_is_valid("-".join(tail)):
            tag = normalise("-".join(tail))
            return tag if count > 1 or tag.partition("-")[0] in known_languages() else None
    return None


def measure_tasks(subject: Subject, specs: Sequence[Spec], tasks: Tasks) -> Answers:
    """Run `tasks` on full precision and on every spec, and return what each loses in each task.

    Scores by document are kept in the store: of the same model, spec, task files and lm-eval they are not computed
    again; lm-eval's own cache is not used. `UsageError` for unknown tasks.
    """
    found, refused = [], {}
    for spec in specs:
        variant = variant_of(spec, subject)
        try:
            changed = _scores(subject, variant, tasks)
        except NotApplicableError as error:
            refused[str(spec)] = str(error)
            continue
        full = _scores(subject, _full(variant, subject), tasks)
        found += [
            compare_documents(
                before,
                changed[name][1],
                task=name,
                spec=str(spec),
                metric=metric,
                language=language_of(name),
                rng=np.random.default_rng(subject.seed),
            )
            for name, (metric, before) in full.items()
        ]
    return Answers(rows=tuple(found), refused=refused)


def _full(variant: Variant, subject: Subject) -> Variant:
    """Return full precision in the dtype of `variant`; lm-eval runs every model by its own forward."""
    return in_dtype(FULL_PRECISION, full_beside(variant, dtype=subject.dtype).dtype or subject.dtype)


def _scores(subject: Subject, variant: Variant, tasks: Tasks) -> dict[str, tuple[str, Scores]]:
    """Return metric and score by document, for every task."""
    key = {
        "schema": SCHEMA,
        "model": subject.local.fingerprint,
        "variant": dict(variant.key),
        "dtype": subject.device.arithmetic(variant.dtype or subject.dtype),
        "tasks": list(tasks.names),
        "limit": tasks.limit,
        **subject.store.known(
            "artefacts", {"tasks": list(tasks.names), "folder": str(tasks.folder)}, lambda: _source(tasks)
        ),
    }

    def compute() -> tuple[Mapping[str, Scores], Mapping[str, Any]]:
        measured = _run(subject, variant, tasks)
        return {name: scores for name, (_, scores) in measured.items()}, {
            "metrics": {name: metric for name, (metric, _) in measured.items()}
        }

    entry = subject.store.compute("tasks", key, compute)
    return {name: (entry.meta["metrics"][name], entry.arrays[name]) for name in sorted(entry.meta["metrics"])}


def _run(subject: Subject, variant: Variant, tasks: Tasks) -> dict[str, tuple[str, Scores]]:
    evaluator: Any = import_module("lm_eval.evaluator")
    models: Any = import_module("lm_eval.models.huggingface")
    manager = _manager(tasks)
    with subject.progress.task(f"{subject.local.text}  {variant.label}  tasks"), variant.open(subject) as scorer:
        loaded = getattr(scorer, "loaded", None)
        if loaded is None:
            raise NotApplicableError(
                f"{variant.label} is not run by torch, and lm-eval's tasks are: measure its excess bits instead"
            )
        results = evaluator.simple_evaluate(
            model=models.HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=8),
            tasks=list(tasks.names),
            task_manager=manager,
            limit=tasks.limit,
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


def _manager(tasks: Tasks) -> Any:
    """Return lm-eval's index: of the folder alone where all names are there, else of its own tasks too."""
    index: Any = import_module("lm_eval.tasks")
    if tasks.folder is not None:
        alone = index.TaskManager(include_path=str(tasks.folder), include_defaults=False)
        if all(alone.match_tasks([name]) for name in tasks.names):
            return alone
    whole = index.TaskManager(include_path=None if tasks.folder is None else str(tasks.folder))
    unknown = [name for name in tasks.names if not whole.match_tasks([name])]
    if unknown:
        raise UsageError(f"lm-eval knows no task {', '.join(unknown)}; `lm_eval ls tasks` lists them")
    return whole


def _source(tasks: Tasks) -> dict[str, Any]:
    """Return what identifies what is asked: lm-eval's version, and the files of the task folder by name and content."""
    try:
        found: dict[str, Any] = {"lm_eval": version("lm_eval")}
    except PackageNotFoundError:
        raise UsageError('tasks are run by lm-eval, which is not installed: pip install "evenbits[lm-eval]"') from None
    if (folder := tasks.folder) is None:
        return found | {"files": None}
    state = hashlib.sha256()
    for file in _files(folder):
        state.update(str(file.relative_to(folder)).encode())
        state.update(hashlib.sha256(file.read_bytes()).digest())
    return found | {"files": state.hexdigest()}


def _files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder} of task files")
    yield from sorted(file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
