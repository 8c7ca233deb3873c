"""Paths as people type them: a home is filled in, and nothing that was typed ends in a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from evenbits.commands.app import app
from evenbits.paths import expanded
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner


def test_a_home_is_filled_in(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert expanded("~/texts") == Path("/somewhere/texts")
    assert expanded("texts/~") == Path("texts/~")


def test_a_user_that_does_not_exist_stays_as_typed():
    assert expanded("~no-such-user/texts") == Path("~no-such-user/texts")


@given(st.text(max_size=20))
@example("~\0")
def test_any_text_is_a_path(text):
    assert isinstance(expanded(text), Path)


@pytest.mark.usefixtures("plain_terminal")
@pytest.mark.parametrize("corpus", ["dir:~no-such-user", "dir:~\0", "hf:~no-such-user/x"])
def test_a_corpus_in_a_home_that_does_not_exist_is_refused_in_a_sentence(corpus):
    result = CliRunner().invoke(app, ["corpora", corpus, "--offline"])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("evenbits: ")
