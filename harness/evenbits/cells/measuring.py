"""Measuring variants x languages into damage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evenbits.cells.cell import Cell
from evenbits.cells.damage import Column, Damage
from evenbits.cells.floor import floor_cells, noise_floor
from evenbits.cells.subject import Subject
from evenbits.cells.tasks import Tasks, measure_tasks
from evenbits.errors import EngineError, EvenbitsError, NonFiniteError
from evenbits.estimates import Estimate
from evenbits.records import Corpus
from evenbits.variants.registry import Spec, bare, bits_of, facts_of, variant_of
from evenbits.variants.variant import Variant, full_beside

__all__ = ["damage_cells", "measure", "measure_damage", "variant_cells"]


def measure_damage(
    subject: Subject,
    specs: Sequence[Spec],
    corpus: Corpus,
    *,
    languages: Sequence[str] | None = None,
    indices: Sequence[int] | None = None,
    tasks: Tasks | None = None,
) -> Damage:
    """Measure every spec on `corpus` and return the damage, in the order of `specs`, with noise floors.

    All specs are checked against the model before anything is computed. Specs are measured grouped by arithmetic, so
    that the model is loaded once per dtype. `languages`, `indices`: measure only these languages and segments; the
    noise floor stays that of the whole corpus, so that the rows of a part are those of the whole. A spec whose engine
    or server fails is in `failed`, and the others are measured; `EngineError` where no other is left. `tasks`: also
    what the specs lose in these.
    """
    part = corpus
    if languages is not None or indices is not None:
        part = corpus.select(
            languages=None if languages is None else tuple(languages),
            indices=None if indices is None else tuple(indices),
        )
    chosen = list(dict.fromkeys(specs))
    bits = {str(spec): bits_of(spec, subject) for spec in chosen}
    variants = {str(spec): variant_of(spec, subject) for spec in chosen}  # refuses what there is no probe text for
    if subject.runner.together:
        subject.measure(damage_cells(subject, chosen, corpus, part=part))
    elif len(ours := [variant for variant in variants.values() if variant.in_memory]) > 1:
        # they share full precision's logits; what runs elsewhere may fail, each for itself
        subject.measure([cell for variant in ours for cell in subject.cells(variant, part)])
    columns: dict[str, Column] = {}
    failed: dict[str, EvenbitsError] = {}
    with subject.progress.task(f"{subject.local.text}  damage", total=len(chosen)) as task:
        for spec in sorted(chosen, key=lambda spec: variants[str(spec)].dtype == "float32"):
            text = str(spec)
            task.doing(text)
            try:
                changed = subject.losses(variants[text], part)
            except (EngineError, NonFiniteError) as error:  # of a process or a server, not of the run
                if variants[text].in_memory:
                    raise
                failed[text] = error
                task.advance()
                continue
            columns[text] = Column(
                spec=text,
                dtype=variants[text].dtype or subject.dtype,
                bits_per_weight=bits[text],
                floor_bits=noise_floor(subject, variant_of(bare(spec), subject), corpus),
                full=subject.losses(full_beside(variants[text], dtype=subject.dtype), part),
                quantized=changed,
                facts=facts_of(spec, subject),
            )
            task.advance()
    if failed and not columns:
        raise next(iter(failed.values()))
    measured = {str(spec): columns[str(spec)] for spec in chosen if str(spec) in columns}
    damage = _damage(subject, corpus, part, measured)
    answers = None if tasks is None else measure_tasks(subject, [one for one in chosen if str(one) in measured], tasks)
    return replace(damage, failed={text: str(error) for text, error in failed.items()}, answers=answers)


def measure(subject: Subject, variants: Mapping[str, Variant], corpus: Corpus) -> Damage:
    """Measure variants, given by a name, on `corpus`, without noise floors; single layers are swept."""
    cells = {name: subject.cells(variant, corpus) for name, variant in variants.items()}
    subject.measure([cell for of_one in cells.values() for cell in of_one])
    unmeasured = Estimate.undefined("not measured for this variant", method="noise floor")
    columns = {
        name: Column(
            spec=name,
            dtype=variant.dtype or subject.dtype,
            bits_per_weight=None,
            floor_bits=unmeasured,
            full=subject.losses(full_beside(variant, dtype=subject.dtype), corpus),
            quantized=subject.losses(variant, corpus),
        )
        for name, variant in variants.items()
    }
    return _damage(subject, corpus, corpus, columns)


def damage_cells(
    subject: Subject, specs: Sequence[Spec], corpus: Corpus, *, part: Corpus | None = None
) -> tuple[Cell, ...]:
    """Return the cells that `measure_damage` would have of `part` (None: all), full precision and floors included."""
    cells: list[Cell] = []
    for spec in dict.fromkeys(specs):
        cells += variant_cells(subject, variant_of(spec, subject), part or corpus)
        cells += floor_cells(subject, variant_of(bare(spec), subject), corpus)
    return tuple(cells)


def variant_cells(subject: Subject, variant: Variant, corpus: Corpus) -> tuple[Cell, ...]:
    """Return the cells that `measure` would have for one variant: full precision's and its own."""
    return (*subject.cells(full_beside(variant, dtype=subject.dtype), corpus), *subject.cells(variant, corpus))


def _damage(subject: Subject, corpus: Corpus, part: Corpus, columns: Mapping[str, Column]) -> Damage:
    return Damage(
        model=subject.local.text,
        fingerprint=subject.local.fingerprint,
        corpus_digest=corpus.digest,
        languages=part.languages,
        segment_ids=part.segment_ids,
        documents=part.documents,
        columns=columns,
        device=subject.device,
    )
