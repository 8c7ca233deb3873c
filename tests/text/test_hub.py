"""`hf:`, `flores` and `belebele` on local data sets; nothing is downloaded."""

import pytest
from evenbits.errors import CorpusError
from evenbits.text import load_corpus

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("datasets", reason="lifted by: pip install 'evenbits[hub]'")

ENGLISH = ["The house is old.", "The sky is blue.", "It rains."]
GERMAN = ["Das Haus ist alt.", "Der Himmel ist blau.", "Es regnet."]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep the library's cache out of the user's folder."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))


def by_configuration(folder, tables, splits=("test",)):
    """Write {configuration: columns} as a data set with one configuration for each."""
    lines = ["---", "configs:"]
    for config, columns in tables.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        (folder / config).mkdir(parents=True)
        for split in splits:
            pq.write_table(pa.table(columns), folder / config / f"{split}.parquet")
            lines += [f"  - split: {split}", f"    path: {config}/{split}.parquet"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")
    return f"hf:{folder}"


def one_table(folder, columns):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "data.parquet")
    return f"hf:{folder}"


def pair(**changed):
    tables = {"eng_Latn": {"id": [1, 2, 3], "text": ENGLISH}, "deu_Latn": {"id": [1, 2, 3], "text": GERMAN}}
    return tables | changed


def counted(corpus):
    return {(entry.what, entry.language, entry.reason): entry.count for entry in corpus.left_out}


def test_one_configuration_for_each_language(tmp_path):
    corpus = load_corpus(by_configuration(tmp_path / "set", pair()))
    assert corpus.languages == ("de", "en")
    assert corpus.segment_ids == ("1", "2", "3")
    assert corpus.texts == {"de": tuple(GERMAN), "en": tuple(ENGLISH)}


def test_one_table_with_a_language_column(tmp_path):
    columns = {
        "language": ["deu_Latn"] * 3 + ["eng_Latn"] * 3,
        "id": ["c", "a", "b", "a", "b", "c"],
        "text": [GERMAN[2], *GERMAN[:2], *ENGLISH],
        "topic": ["x"] * 6,
    }
    corpus = load_corpus(one_table(tmp_path / "set", columns))
    assert corpus.segment_ids == ("a", "b", "c")
    assert corpus.texts == {"de": tuple(GERMAN), "en": tuple(ENGLISH)}


def test_a_split_must_be_named_where_there_are_several(tmp_path):
    text = by_configuration(tmp_path / "set", pair(), splits=("dev", "devtest"))
    with pytest.raises(CorpusError, match=r"has the splits dev, devtest; name one, as in hf:.*set:dev"):
        load_corpus(text)
    assert len(load_corpus(f"{text}:devtest")) == 3
    with pytest.raises(CorpusError, match=r"has no split train; it has dev, devtest"):
        load_corpus(f"{text}:train")


def test_a_configuration_can_be_named_and_a_wrong_one_lists_those_there_are(tmp_path):
    columns = {"lang": ["de", "en"], "id": [1, 1], "sentence": [GERMAN[0], ENGLISH[0]]}
    text = by_configuration(tmp_path / "set", {"parallel": columns, "monolingual": columns})
    # The folder `set/parallel` is a data set of its own; named from outside, it is read as one.
    assert load_corpus(f"{text}/parallel").languages == ("de", "en")
    with pytest.raises(CorpusError, match=r"has no configuration absent; it has monolingual, parallel|parallel, mono"):
        load_corpus(f"{text}/absent")
    with pytest.raises(CorpusError, match=r"no configuration of .* is named after a language"):
        load_corpus(text)


def test_configurations_that_are_no_language_or_a_second_time_are_counted(tmp_path):
    tables = pair(default={"id": [1], "text": ["all"]}, metadata={"id": [1], "text": ["x"]})
    tables["ger"] = {"id": [1, 2, 3], "text": GERMAN}
    corpus = load_corpus(by_configuration(tmp_path / "set", tables))
    assert corpus.languages == ("de", "en")
    assert counted(corpus) == {
        ("configuration", None, "metadata is no language tag"): 1,
        ("configuration", "de", "ger is the same language as deu_Latn, which is used"): 1,
    }


def test_absent_languages_are_named_and_unasked_ones_counted(tmp_path):
    text = by_configuration(tmp_path / "set", pair())
    with pytest.raises(CorpusError, match=r"has no text in ko\. It has 2 languages: de, en\."):
        load_corpus(text, languages="de,ko")
    assert counted(load_corpus(text, languages="de")) == {("language", None, "not asked for"): 1}


def test_missing_ids_empty_texts_and_copies_are_left_out_and_counted(tmp_path):
    tables = {
        "en": {"id": [1, 2, 3, 4, 5], "text": [*ENGLISH, "We are here.", "Go."]},
        "de": {"id": [5, 4, 3, 2], "text": ["Geh.", "Wir sind da.", None, ENGLISH[1]]},
    }
    corpus = load_corpus(by_configuration(tmp_path / "set", tables))
    assert corpus.segment_ids == ("4", "5")
    assert counted(corpus) == {
        ("segment", "de", "missing in this language"): 1,
        ("segment", "de", "empty"): 1,
        ("segment", "de", "equal to the source text"): 1,
        ("segment", None, "not usable in every language"): 3,
    }


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": GERMAN}, "has the columns text; needed are id and text"),
        ({"id": [1, 2, 3], "body": GERMAN}, "has the columns id, body; needed are id and text"),
        ({"id": [1, 1, 2], "text": GERMAN}, "de has the id 1 a second time"),
        ({"id": [1, None, 2], "text": GERMAN}, "row 1 of de has no id"),
        ({"id": [1, 2, 3], "text": [1, 2, 3]}, "text of 1 in de is int, not text"),
    ],
)
def test_a_table_that_cannot_be_aligned_is_refused(tmp_path, columns, message):
    with pytest.raises(CorpusError, match=message):
        load_corpus(by_configuration(tmp_path / "set", pair(deu_Latn=columns)))


def test_one_table_needs_a_language_column_with_tags(tmp_path):
    with pytest.raises(CorpusError, match="one table needs a column language beside id and text"):
        load_corpus(one_table(tmp_path / "a", {"id": [1], "text": ["x"]}))
    with pytest.raises(CorpusError, match="the column language holds no language tag, but german"):
        load_corpus(one_table(tmp_path / "b", {"id": [1], "text": ["x"], "language": ["german"]}))


def test_rows_of_no_language_are_counted_and_spoil_nothing(tmp_path):
    table = {"id": ["1", "1", "1", "2"], "text": list("abcd"), "language": ["de", "xx@yyy", "fr", None]}
    corpus = load_corpus(one_table(tmp_path / "c", table))
    assert corpus.texts == {"de": ("a",), "fr": ("c",)}
    assert counted(corpus) == {("value of language", None, "its name is no language tag: xx@yyy, (None)"): 2}


def test_a_fault_of_english_that_nobody_asked_for_is_told_and_spoils_nothing(tmp_path):
    tables = pair(en={"id": [1, 1, 1], "text": ENGLISH})
    corpus = load_corpus(by_configuration(tmp_path / "set", tables), languages="de")
    assert len(corpus) == 3
    assert any(one.language == "en" and "en has the id 1 a second time" in one.reason for one in corpus.left_out)


def test_a_passage_of_belebele_counts_once_however_many_questions_it_has(tmp_path):
    def rows(language, passages):
        return {
            "link": ["u/one", "u/one", "u/two", "u/three", "u/three"],
            "question_number": [1, 2, 1, 1, 1],
            "flores_passage": passages,
            "dialect": [language] * 5,
        }

    tables = {
        "eng_Latn": rows("eng_Latn", ["House.", "House.", "Sky.", "Rain.", "Snow."]),
        "deu_Latn": rows("deu_Latn", ["Haus.", "Haus. ", "Himmel.", "Regen.", "Schnee."]),
    }
    corpus = load_corpus(by_configuration(tmp_path / "set", tables))
    # u/three names two passages, so it is no id of either.
    assert corpus.segment_ids == ("u/one", "u/two")
    assert corpus.texts["de"] == ("Haus.", "Himmel.")
    assert counted(corpus) == {
        ("segment", "de", "one id with different texts"): 1,
        ("segment", "en", "one id with different texts"): 1,
    }


def test_with_a_split_column_belebele_tells_two_passages_of_a_link_apart(tmp_path):
    columns = {"link": ["u", "u"], "split": ["dev", "test"], "question_number": [1, 1]}
    tables = {
        "eng_Latn": columns | {"flores_passage": ["Rain.", "Snow."]},
        "deu_Latn": columns | {"flores_passage": ["Regen.", "Schnee."]},
    }
    assert load_corpus(by_configuration(tmp_path / "set", tables)).segment_ids == ("dev:u", "test:u")


@pytest.mark.parametrize("text", ["flores", "belebele", "hf:nobody/nothing:test"])
def test_offline_a_hub_data_set_that_is_not_here_says_so(text):
    with pytest.raises(CorpusError, match=r"is not on this machine, and the run is offline.*gettext or dir:PATH"):
        load_corpus(text, offline=True)


def test_offline_leaves_the_libraries_as_they_were(monkeypatch):
    import datasets
    from huggingface_hub import constants

    for module in (datasets.config, constants):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
    with pytest.raises(CorpusError):
        load_corpus("flores", offline=True)
    assert datasets.config.HF_HUB_OFFLINE is constants.HF_HUB_OFFLINE is False
    assert not datasets.utils.are_progress_bars_disabled()


def test_a_gated_data_set_says_how_to_get_in(monkeypatch):
    import datasets

    def refuse(path):
        raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{path}' is a gated dataset on the Hub.")

    monkeypatch.setattr(datasets, "get_dataset_config_names", refuse)
    with pytest.raises(CorpusError, match=r"openlanguagedata/flores_plus is gated\. Accept its terms.*hf auth login"):
        load_corpus("flores")


def test_code_that_comes_with_a_data_set_is_never_run(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    with pytest.raises(CorpusError, match="code of a data set is never run"):
        load_corpus(f"hf:{folder}")
    assert not (tmp_path / "ran").exists()


def test_a_broken_file_is_named_with_its_data_set(tmp_path):
    text = by_configuration(tmp_path / "set", pair())
    (tmp_path / "set" / "deu_Latn" / "test.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(CorpusError, match=r"set cannot be read"):
        load_corpus(text)


def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(tmp_path):
    for location in ("name", str(tmp_path / "absent" / "deeper")):
        with pytest.raises(CorpusError, match="neither a folder here nor a hub id such as owner/name"):
            load_corpus(f"hf:{location}")


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(CorpusError, match=r"pip install 'evenbits\[hub\]'"):
        load_corpus("flores")


def test_sentences_of_one_article_are_of_one_document(tmp_path):
    articles = {"url": ["https://a", "https://a", "https://b"]}
    tables = {name: columns | articles for name, columns in pair().items()}
    assert load_corpus(by_configuration(tmp_path / "set", tables)).documents == tuple(articles["url"])
