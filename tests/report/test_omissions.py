"""What a run left out, in phrases."""

from evenbits.report.omissions import in_short, left_out


def language(tag, reason="no text"):
    return {"what": "language", "language": tag, "count": 1, "reason": reason}


def test_a_few_languages_left_out_are_named_and_many_counted():
    assert in_short([language("en"), language("de")]) == ["de, en (no text); -v says why"]
    many = [language(tag) for tag in ("ar", "de", "en", "fi", "fr", "ga", "gd")]
    assert in_short(many) == ["7 languages (no text); -v says why"]
    assert in_short([]) == []


def test_what_is_not_a_language_is_counted_by_kind():
    rows = [{"what": "segment", "language": tag, "count": 600, "reason": "empty"} for tag in ("de", "en")]
    assert in_short([language("ka"), *rows]) == ["ka (no text), 1,200 segments; -v says why"]
    assert left_out(rows) == ["1200 segments in 2 languages: empty"]
