"""Damage and measurements as flat tables: CSV and Parquet."""

import csv
import io

import pytest
from evenbits.report import tables
from evenbits.report.files import write_files
from evenbits.report.table import Table, table_of
from evenbits.report.tables import COLUMNS, damage_table, measurement_table, write_tables
from report_documents import LANGUAGES, realistic


@pytest.fixture(scope="module")
def document():
    return realistic(kept=(0.0, 0.1), layers=2)


def test_a_damage_row_carries_its_estimates_unrounded_and_what_is_known_of_its_language(document):
    row, source = damage_table(document)[5], document["damage"][5]
    assert row["excess_bits_value"] == source["excess_bits"]["value"]
    assert row["kl_nats_per_token_p99"] == source["kl_nats_per_token"]["p99"]
    about = {tag: (name, script, tier) for tag, name, script, _, tier in LANGUAGES}
    assert (row["language_name"], row["script"], row["tier"]) == about[source["language"]]
    assert len(damage_table(document)) == len(document["damage"])


def test_the_level_of_a_language_is_that_of_the_model_where_its_training_text_is_known(document):
    trained = {
        **document,
        "inputs": {
            **document["inputs"],
            "models": [{**document["inputs"]["models"][0], "exposure": {"ug": 10**7, "en": 10**4}}],
        },
    }
    tiers = {row["language"]: row["tier"] for row in damage_table(trained)}
    assert (tiers["ug"], tiers["en"], tiers["de"]) == ("high", "low", None)


def test_columns_are_the_same_whatever_the_rows(document):
    assert all(tuple(row) == COLUMNS["damage"] for row in damage_table(document))
    assert all(tuple(row) == COLUMNS["measurements"] for row in measurement_table(document))
    assert Table(columns=COLUMNS["damage"], rows=()).to_csv().splitlines() == [",".join(COLUMNS["damage"])]


def test_csv_reads_back_to_the_numbers_and_an_undefined_one_is_empty_with_its_reason(document):
    text = measurement_table(document).to_csv()
    rows = list(csv.DictReader(io.StringIO(text)))
    by_name = {row["hypothesis"]: row for row in rows if row["role"] == "criterion"}
    assert float(by_name["H-036"]["estimate_value"]) == 0.11
    assert by_name["H-035"]["metric_sensitive"] == "true"
    assert by_name["H-038"]["estimate_value"] == ""
    assert by_name["H-038"]["estimate_reason"] == "4 resilient low-resource languages, needed 6"


def test_a_text_that_a_spreadsheet_would_run_is_disarmed():
    rows = [{"a": "=1+1", "b": -1.5}, {"a": "@x", "b": None}, {"a": "plain", "b": True}]
    assert Table(columns=("a", "b"), rows=tuple(rows)).to_csv().splitlines()[1:] == ["'=1+1,-1.5", "'@x,", "plain,true"]


def test_parquet_has_the_same_rows_with_their_types(document, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow; install evenbits[parquet]")
    names = [file.name for file in write_tables(document, tmp_path)]
    assert names == ["damage.csv", "damage.parquet", "measurements.csv", "measurements.parquet"]
    read = parquet.read_table(tmp_path / "measurements.parquet")
    assert read.to_pylist() == list(measurement_table(document))
    kinds = {name: str(read.schema.field(name).type) for name in ("estimate_n", "p_value", "metric_sensitive", "test")}
    assert kinds == {"estimate_n": "int64", "p_value": "double", "metric_sensitive": "bool", "test": "string"}


def test_tables_of_runs_with_and_without_reasons_concatenate():
    arrow = pytest.importorskip("pyarrow", reason="needs pyarrow; install evenbits[parquet]")
    row = {"language": "de", "excess_bits": {"value": 1.0, "reason": None}, "tier": None}
    other = {"language": "sw", "excess_bits": {"value": None, "reason": "no segments"}, "tier": "low"}
    whole = arrow.concat_tables([table_of([row]).to_arrow(), table_of([other]).to_arrow()])
    assert whole.column("excess_bits_reason").to_pylist() == [None, "no segments"]


def test_without_pyarrow_csv_is_written_and_a_sentence_says_what_to_install(document, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "find_spec", lambda _name: None)
    (tmp_path / "damage.parquet").write_text("of an earlier run")
    written, notes = write_files(document, tmp_path)
    assert {"damage.csv", "measurements.csv"} <= {file.name for file in written}
    assert not (tmp_path / "damage.parquet").exists()
    assert any("install evenbits[parquet]" in note for note in notes)
