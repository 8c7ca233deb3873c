"""Numbered reports: saving, and what a number or `latest` names."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from evenbits.errors import ReportError
from evenbits.report.document import load
from evenbits.report.saved import find_report, save_report, saved_reports
from report_documents import realistic


@pytest.fixture(scope="module")
def document():
    return realistic(kept=(0.0,), layers=2)


def test_reports_are_numbered_in_the_order_of_saving_and_read_back_equal(document, tmp_path):
    first, second = (save_report(document, tmp_path / "saved") for _ in range(2))
    assert first.name == "0001_unversioned_20261123T200000.json"  # the start of the run stands in the document
    assert second.name.startswith("0002_")
    assert load(first) == document
    assert list(saved_reports(tmp_path / "saved")) == [1, 2]


def test_the_name_has_the_commit_of_the_repository_in_which_the_folder_lies(document, tmp_path):
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", str(tmp_path)]
    for arguments in (["init"], ["commit", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert save_report(document, tmp_path / ".evenbits").name.startswith(f"0001_{commit[:12]}_")


def test_a_number_is_never_given_twice_also_after_old_reports_were_deleted_or_two_runs_save_at_once(document, tmp_path):
    save_report(document, tmp_path)
    save_report(document, tmp_path).rename(tmp_path / "0007_x.json")
    assert save_report(document, tmp_path).name.startswith("0008_")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: save_report(document, tmp_path), range(4)))
    assert list(saved_reports(tmp_path)) == [1, 7, 8, 9, 10, 11, 12]


def test_latest_and_numbers_with_or_without_zeros_name_saved_reports_and_files_win(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = (save_report(document, tmp_path / "s") for _ in range(2))
    assert find_report("latest", tmp_path / "s") == second
    assert find_report("0001", tmp_path / "s") == find_report("1", tmp_path / "s") == first
    assert str(find_report("out/report.json", tmp_path / "s")) == "out/report.json"
    (tmp_path / "1").write_text("{}")
    assert str(find_report("1", tmp_path / "s")) == "1"


def test_a_number_that_was_never_saved_is_refused_with_those_there_are(document, tmp_path):
    with pytest.raises(ReportError, match=r"no saved report latest in .*; it has none: run once with --autosave\."):
        find_report("latest", tmp_path)
    save_report(document, tmp_path)
    with pytest.raises(ReportError, match=r"no saved report 0004 in .*; it has 0001\."):
        find_report("0004", tmp_path)


def test_other_files_in_the_folder_are_nobodys_report(document, tmp_path):
    (tmp_path / "notes.json").write_text("{}")
    (tmp_path / "9999.json").write_text("{}")
    assert save_report(document, tmp_path).name.startswith("0001_")


def test_a_folder_that_cannot_be_written_is_a_sentence(document, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="cannot be saved in"):
        save_report(document, tmp_path / "file")
