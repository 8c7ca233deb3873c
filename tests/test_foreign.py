"""Files of others: whatever they hold gives a value of the type asked for, or one sentence with file and key."""

import contextlib
import json
import os

import pytest
from evenbits.errors import ModelError, UsageError
from evenbits.foreign import Entries, named, parse_json, parse_toml, read_json, read_object, read_toml, shown
from hypothesis import given
from hypothesis import strategies as st

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def refused(content, match, reader=parse_json):
    with pytest.raises(ModelError, match=match) as caught:
        reader(content, source="there.json", error=ModelError)
    message = str(caught.value)
    assert message.startswith("there.json ")
    assert "\n" not in message
    assert len(message) < 300


@given(json_values)
def test_what_json_wrote_comes_back(value):
    assert parse_json(json.dumps(value).encode(), source="s", error=ModelError) == value


@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:\\ud8019eE-+.nultrfasNI ', max_size=60).map(str.encode))
def test_any_bytes_give_a_value_or_the_callers_error(content):
    for reader in (parse_json, parse_toml):
        with contextlib.suppress(ModelError):
            reader(content, source="s", error=ModelError)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b'{"a": ', "is not JSON at byte 6"),
        ('["ü", '.encode(), "is not JSON at byte 7"),  # ü takes two bytes
        (b"\xff", "is not UTF-8 at byte 0"),
        (b"[" * 100_000, "is nested more than 64 levels deep"),
        (b'{"a":' * 100_000, "is nested more than 64 levels deep"),
        (b"[" * 65 + b"]" * 65, "is nested more than 64 levels deep"),
        (b"1" * 5000, "a whole number of 5000 digits"),
        (b"[1e999]", "the number 1e999, too large"),
        (b"[NaN]", "holds NaN, which is no number"),
        (b'{"a": 1, "b": 2, "a": 3}', "the key a twice"),
        (rb'{"\ud800": 1}', r'holds "\\ud800", which is no Unicode'),
        (rb'[["x", "\udfff"]]', "which is no Unicode"),
    ],
)
def test_json_beyond_its_bounds_is_refused_with_what_is_wrong(content, match):
    refused(content, match)


def test_sixty_four_levels_pairs_of_surrogates_and_numbers_of_forty_digits_are_fine():
    assert parse_json(b"[" * 64 + b"]" * 64, source="s", error=ModelError)
    assert parse_json(rb'"\ud83d\ude00"', source="s", error=ModelError) == "😀"
    # what transformers writes for "no limit"
    assert parse_json(b"1000000000000000019884624838656", source="s", error=ModelError) == int(1e30)
    assert parse_json(b"[0.0, Infinity]", source="s", error=ModelError, infinite=True)[1] == float("inf")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"a = ", "is not TOML: "),
        (b"a = 1\na = 2", "is not TOML: "),
        (b"a = " + b"1" * 5000, "a number of thousands of digits"),
        (b"a = " + b"[" * 5000, "is nested more than 64 levels deep"),
        (b"a = '\xff'", "is not UTF-8 at byte 5"),
    ],
)
def test_toml_beyond_its_bounds_is_refused_with_what_is_wrong(content, match):
    refused(content, match, parse_toml)


def test_files_that_cannot_be_read_are_named(tmp_path):
    file = tmp_path / "f.json"
    with pytest.raises(UsageError, match=r"f\.json is not there"):
        read_json(file, error=UsageError)
    with pytest.raises(UsageError, match="is no regular file"):
        read_json(tmp_path, error=UsageError)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe is no regular file"):  # and nobody waits for a writer
        read_toml(tmp_path / "pipe", error=UsageError)
    file.write_text('{"a": "long"}')
    with pytest.raises(UsageError, match="is larger than 4 bytes"):
        read_json(file, error=UsageError, largest=4)
    assert read_json(file, error=UsageError, largest=13) == {"a": "long"}


def test_an_entry_of_another_type_is_named_with_file_and_key(tmp_path):
    file = tmp_path / "f.json"
    file.write_text(
        '{"n": "four", "t": 5, "l": [1, -2], "f": 1, "o": [], "rows": [{"k": 1}, 2], "none": null, "big": 70}'
    )
    held = read_object(file, error=ModelError)
    for ask, match in [
        (lambda: held.whole("n"), 'n must be a whole number of at least 0, not "four"'),
        (lambda: held.whole("big", least=1, most=64), "big must be a whole number from 1 to 64, not 70"),
        (lambda: held.text("t"), "t must be a text, not 5"),
        (lambda: held.text("absent"), "has no absent, which must be a text"),
        (lambda: held.wholes("l"), r"l must be a list of whole numbers, 0 or more, not \[1, -2\]"),
        (lambda: held.texts("l"), "l must be a list of texts"),
        (lambda: held.flag("f"), "f must be true or false, not 1"),
        (lambda: held.entries("o"), r"o must be an object, not \[\]"),
        (lambda: [row.whole("k") for row in held.rows("rows")], r"rows\[1\] must be an object, not 2"),
    ]:
        with pytest.raises(ModelError, match=rf"f\.json.*{match}"):
            ask()
    assert (held.text("none", "given"), held.whole("absent", 3), held.whole("big", most=70)) == ("given", 3, 70)
    assert next(held.rows("rows")).whole("k") == 1


@given(st.text() | json_values)
def test_what_is_shown_of_a_value_is_one_short_printable_line(value):
    assert len(shown(value)) <= 60
    assert shown(value).isprintable()


def test_a_name_is_shown_as_it_is_without_what_a_terminal_would_act_on():
    assert named("model.layers.0.é") == "model.layers.0.é"
    assert "\x1b" not in named("a\x1b[2Jb\u202e")


def test_what_is_no_object_is_refused():
    with pytest.raises(ModelError, match=r"f: x must be an object, not \[1\]"):
        Entries.of([1], source="f: x", error=ModelError)


def test_a_byte_order_mark_before_toml_is_no_part_of_it():
    assert parse_toml(b"\xef\xbb\xbfa = 1\n", source="x", error=ModelError) == {"a": 1}
