"""Which models and specs take part in the experiment on exposure."""

import importlib.util

import pytest
from evenbits.cells import Subject
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.studies.exposure import SPECS
from evenbits.studies.exposure.wants import specs_of, takes_part


def subject(name, store):
    return Subject(local=resolve(parse_model(name), store=store), store=store)


@pytest.mark.parametrize(
    ("name", "part"),
    [("reference:a1", True), ("reference:a2r", True), ("reference:eq", False), ("reference:a1-heavy", False)],
)
def test_models_that_differ_in_exposure_alone_take_part(store, name, part):
    assert takes_part(subject(name, store)) is part


def test_a_model_whose_exposure_is_unknown_takes_no_part(store, tiny_llama):
    assert not takes_part(subject(str(tiny_llama), store))


def test_formats_of_llama_cpp_take_part_where_they_can_be_rounded_to(store):
    able, unable = specs_of(subject("reference:a1", store))
    assert [str(spec) for spec in able] == [spec for spec in SPECS if spec not in unable]
    if importlib.util.find_spec("libgguf") is None:
        assert set(unable) == {"gguf:Q4_K_M", "gguf:Q2_K"}
        assert "evenbits[gguf]" in unable["gguf:Q2_K"]
    else:
        assert not unable
