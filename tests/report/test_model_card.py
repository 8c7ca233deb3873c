"""Model-card metadata, through the types of huggingface_hub."""

import copy

import pytest
from evenbits.errors import ReportError
from evenbits.report.files import write_files
from evenbits.report.model_card import card_data, eval_results, model_card
from huggingface_hub import ModelCardData
from report_documents import realistic


@pytest.fixture(scope="module")
def document():
    return realistic(models=("organisation/one", "organisation/two"), kept=(0.0, 0.1), layers=2)


def test_every_language_and_base_spec_is_an_evaluation_result(document):
    found = eval_results(document, "organisation/one")
    assert len(found) == 2 * 40  # two specs; those that keep weights are not the model as it would be shipped
    rows = {(row["spec"], row["language"]): row for row in document["damage"] if row["model"] == "organisation/one"}
    first = found[0]
    worst = max(
        (row for (spec, _), row in rows.items() if spec == "int3-row"), key=lambda row: row["excess_bits"]["value"]
    )
    assert (first.dataset_config, first.metric_value) == (worst["language"], worst["excess_bits"]["value"])
    assert first.metric_type == "excess_bits_per_segment"
    assert first.dataset_revision == document["inputs"]["corpus"]["digest"]


def test_the_metadata_reads_back_as_a_model_card(document):
    text = model_card(document, "organisation/two")
    metadata = text.split("---")[1]
    import yaml

    back = ModelCardData(**yaml.safe_load(metadata))
    assert len(back.eval_results) == 80
    assert "de" in back.language
    assert card_data(document, "organisation/two").to_yaml() == metadata.strip("\n")


def test_the_card_says_the_verdicts_of_this_model_and_marks_what_lies_below_the_floor(document):
    noisy = copy.deepcopy(document)
    noisy["damage"][0]["excess_bits"]["reason"] = "below_floor: under three noise floors of 1.5"
    text = model_card(noisy, "organisation/one")
    assert "- H-036: supported (layer x language: languages rely on different layers, int3-row)" in text
    assert "\\* 1 below three noise floors" in text


def test_a_model_without_damage_is_refused_with_those_there_are(document):
    with pytest.raises(ReportError, match="it has that of organisation/one, organisation/two"):
        model_card(document, "other")


def test_each_model_gets_a_file_of_its_own(document, tmp_path):
    written, _ = write_files(document, tmp_path)
    assert {"model-card-organisation-one.md", "model-card-organisation-two.md"} <= {file.name for file in written}
