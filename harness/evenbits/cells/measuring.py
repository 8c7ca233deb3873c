"""Measuring specs x languages into a damage table."""

from __future__ import annotations

from collections.abc import Sequence

from evenbits.cells.bench import ModelUnderTest
from evenbits.cells.damage import DamageTable, SpecDamage
from evenbits.errors import SpecError
from evenbits.records import Corpus
from evenbits.variants.quantization.spec import QuantSpec

__all__ = ["measure_damage"]


def measure_damage(
    model: ModelUnderTest, specs: Sequence[QuantSpec], corpus: Corpus, *, languages: Sequence[str] | None = None
) -> DamageTable:
    """Measure every spec on `corpus` and return the table, in the order of `specs`.

    All specs are checked against the model before anything is computed. Specs are measured grouped by arithmetic, so
    that the model is loaded once per dtype. `languages`: measure only these; the noise floor stays that of the whole
    corpus, so that the rows of a part are those of the whole.
    """
    part = corpus if languages is None else corpus.select(languages=tuple(languages))
    chosen = list(dict.fromkeys(specs))
    for spec in chosen:
        if spec.grid is None:
            raise SpecError(f"{spec}: full precision is what damage is measured against; name a quantized spec")
        model.spec_variant(spec)  # refuses statistics that there is no probe text for
        model.bits_per_weight(spec)
    columns: dict[str, SpecDamage] = {}
    with model.progress.task(f"{model.local.text}  damage", total=len(chosen)) as task:
        for spec in sorted(chosen, key=lambda spec: spec.needs_float32):
            task.doing(str(spec))
            columns[str(spec)] = model.damage(spec, part, whole=corpus)
            task.advance()
    return DamageTable(
        model=model.local.text,
        fingerprint=model.local.fingerprint,
        corpus_digest=corpus.digest,
        languages=part.languages,
        segment_ids=corpus.segment_ids,
        columns={str(spec): columns[str(spec)] for spec in chosen},
    )
