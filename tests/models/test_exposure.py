import json

import pytest
from evenbits.errors import ModelError
from evenbits.models.exposure import read_exposure, trained_languages
from evenbits.models.references import parse_model
from evenbits.models.shipped import expand, reference_names, reference_root
from evenbits.models.sources import resolve


@pytest.fixture
def written(tmp_path):
    def write(value):
        text = value if isinstance(value, str) else json.dumps(value)
        (tmp_path / "exposure.json").write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_exposure_is_read_by_normalised_tag(written):
    assert dict(read_exposure(written({"de_DE": 400, "zh-CN": 0}))) == {"de": 400, "zh-Hans": 0}


def test_a_folder_without_the_file_says_nothing_of_exposure(tmp_path):
    assert read_exposure(tmp_path) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "is not JSON at byte 1"),
        ([], "must map language tags"),
        ({}, "must map language tags"),
        ({"de": -1}, "de has -1"),
        ({"de": 1.5}, "de has 1.5"),
        ({"de": True}, "de has true"),
        ({"not a language": 1}, "is not a language tag"),
        ({"de": 1, "deu": 2}, "de twice"),
        ('{"de": 1, "de": 2}', "the key de twice"),
        ('{"de": ' + "9" * 4000 + "}", "a whole number of 4000 digits"),
        ("[" * 100_000, "nested more than 64 levels"),
    ],
)
def test_what_is_no_exposure_is_refused_with_the_file_and_the_entry(written, value, message):
    with pytest.raises(ModelError, match=message) as caught:
        read_exposure(written(value))
    assert "exposure.json" in str(caught.value)


def test_a_resolved_model_carries_its_exposure(tiny_llama, tmp_path):
    import shutil

    from evenbits.store import Store

    folder = tmp_path / "known"
    shutil.copytree(tiny_llama, folder)
    (folder / "exposure.json").write_text('{"de": 5, "ga": 1}', encoding="utf-8")
    store = Store(tmp_path / "store")
    known, unknown = (resolve(parse_model(str(path)), store=store) for path in (folder, tiny_llama))
    assert known.exposure == {"de": 5, "ga": 1}
    assert unknown.exposure is None
    assert known.fingerprint == unknown.fingerprint  # what was trained on changes no measurement


def test_what_any_model_was_trained_on_counts_as_trained_also_before_an_early_checkpoint_met_it():
    assert trained_languages([{"de": 5, "ga": 0, "fr": 0}, {"de": 1, "ga": 0, "fr": 3}]) == ("de", "fr")
    assert trained_languages([{"de": 5}, None]) is None
    assert trained_languages([]) is None
    assert trained_languages([{"de": 0}]) is None


def test_reference_stands_for_the_whole_family_and_names_no_model_twice(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "no-model").mkdir()
    asked = [parse_model("reference:b"), parse_model("reference"), parse_model("reference")]
    assert [ref.text for ref in expand(asked, root=tmp_path)] == ["reference:b", "reference:a"]
    with pytest.raises(ModelError, match="no reference model is installed"):
        expand([parse_model("reference")], root=tmp_path / "no-model")


def test_the_reference_family_that_ships_is_found_without_importing_it():
    root = reference_root()
    assert root is not None
    assert "a1" in reference_names(root)
