"""The text form of a quantization spec."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal

import pytest
from evenbits.errors import SpecError
from evenbits.variants.quantization.spec import (
    CRITERIA,
    EXTRAS,
    LANGUAGE_AWARE,
    Clip,
    Grid,
    Keep,
    QuantSpec,
    parse_spec,
    parse_specs,
)
from hypothesis import example, given
from hypothesis import strategies as st

TAGS = st.lists(st.sampled_from(["de", "en", "hsb", "ka", "sr-Cyrl", "sr-Latn", "ug"]), max_size=3).map(tuple)
NAMES = st.lists(
    st.sampled_from(
        ["model.layers.0", "model.layers.10.mlp", "model.layers.2", "transformer.h.3.attn.c_attn", "lm_head"]
    ),
    max_size=3,
).map(tuple)
SPANS = st.sampled_from([("tensor", None), ("row", None), ("group", 32), ("group", 48), ("group", 128)])
INTS = st.builds(
    lambda bits, span, symmetric: Grid(bits=bits, span=span[0], size=span[1], symmetric=symmetric),
    st.integers(2, 8),
    SPANS,
    st.booleans(),
)
GRIDS = INTS | st.just(Grid(kind="nf4", bits=4, span="group", size=64))
PERCENTS = st.decimals(min_value="0.0001", max_value="100", places=4)


@st.composite
def keeps(draw):
    criterion = draw(st.sampled_from(CRITERIA))
    languages = draw(TAGS) if criterion in LANGUAGE_AWARE else ()
    return Keep(
        percent=draw(PERCENTS),
        criterion=criterion,
        languages=languages,
        scope=draw(st.sampled_from(["tensor", "global"])),
    )


SPECS = st.builds(
    QuantSpec,
    grid=GRIDS,
    keep=st.none() | keeps(),
    clip=st.none() | st.builds(Clip, languages=TAGS),
    protect=NAMES,
    only=NAMES,
    include=st.lists(st.sampled_from(EXTRAS), max_size=2).map(tuple),
)


@given(spec=SPECS)
@example(spec=QuantSpec(grid=None))
@example(spec=QuantSpec(grid=Grid(bits=4, span="row"), keep=Keep(percent=Decimal("1E+2"), criterion="random")))
def test_a_spec_survives_being_written_and_read(spec):
    assert parse_spec(str(spec)) == spec


@given(specs=st.lists(SPECS, min_size=1, max_size=4))
def test_a_list_of_specs_survives_being_written_and_read(specs):
    assert parse_specs(",".join(map(str, specs))) == tuple(specs)


@pytest.mark.parametrize(
    "text",
    [
        "int4-g64",
        "int8-row",
        "int2-tensor",
        "nf4-b64",
        "int4-g64-asym",
        "int3-g128+keep0.1%:magnitude",
        "int4-g64+protect:model.layers.0",
        "int4-row+keep0.01%:activation[de,ka]@global+clip:mse[ka,ug]+protect:model.layers.0+only:model.layers+include:head",
        "none",
    ],
)
def test_canonical_text_is_written_as_it_was_read(text):
    assert str(parse_spec(text)) == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("full", "none"),
        (" int4-g64 ", "int4-g64"),
        ("int4-g64+protect:b|a", "int4-g64+protect:a+protect:b"),
        ("int4-g64+protect:a.10+protect:a.2", "int4-g64+protect:a.2+protect:a.10"),
        ("int4-g64+clip:mse+keep0.10%:magnitude", "int4-g64+keep0.1%:magnitude+clip:mse"),
        ("int4-g64+keep1%:activation[ka,de,ka]", "int4-g64+keep1%:activation[de,ka]"),
        ("int4-g64+keep1%:random@tensor", "int4-g64+keep1%:random"),
        ("int4-g64+keep1%:activation[deu_Latn,de]".replace("deu_Latn", "de-Latn"), "int4-g64+keep1%:activation[de]"),
    ],
)
def test_other_spellings_are_brought_to_the_canonical_one(text, canonical):
    assert str(parse_spec(text)) == canonical


def test_commas_inside_brackets_do_not_split_a_list():
    specs = parse_specs("int4-g64,int4-row+keep0.1%:activation[de,ka],nf4-b64+clip:mse[ka,ug]")
    assert list(map(str, specs)) == ["int4-g64", "int4-row+keep0.1%:activation[de,ka]", "nf4-b64+clip:mse[ka,ug]"]


@pytest.mark.parametrize(
    ("text", "part", "allowed"),
    [
        ("int9-g64", "int9", "2 to 8"),
        ("int1-row", "int1", "2 to 8"),
        ("int4", "'int4'", "-tensor, -row or -gN"),
        ("int4-g1", "group of 1", "smallest group is 2"),
        ("fp4-b64", "'fp4-b64'", "nf4-bN"),
        ("nf4-g64", "'nf4-g64'", "nf4-bN"),
        ("nf4-b64-asym", "'nf4-b64-asym'", "nf4-bN"),
        ("int4-g64+keep0.1%:size", "'size'", "magnitude, activation"),
        ("int4-g64+keep0.1:magnitude", "keep0.1:magnitude", "keep0.1%:magnitude"),
        ("int4-g64+keepx%:magnitude", "'x'", "number of percent"),
        ("int4-g64+keepNaN%:magnitude", "NaN", "above 0"),
        ("int4-g64+keep0%:magnitude", "keep0%", "leave the modifier out"),
        ("int4-g64+keep101%:magnitude", "keep101%", "at most 100"),
        ("int4-g64+keep1%:magnitude[de]", "magnitude[de]", "activation and sensitivity"),
        ("int4-g64+keep1%:magnitude@layer", "@layer", "@global"),
        ("int4-g64+keep1%:activation[]", "''", "[de,sr-Cyrl]"),
        ("int4-g64+keep1%:random+keep2%:random", "'keep2%:random'", "at most one"),
        ("int4-g64+clip:max", "'clip:max'", "clip:mse"),
        ("int4-g64+protect:", "protect:", "module path"),
        ("int4-g64+include:norm", "include:norm", "include:embedding, include:head"),
        ("int4-g64+prune:1%", "'prune:1%'", "protect:NAME"),
        ("none+clip:mse", "none", "no modifiers"),
        ("int4-g64+protect:a,b", "'b'", "joined by |"),
        ("int4-g64,,nf4-b64", "empty entry", "single commas"),
    ],
)
def test_an_impossible_spec_is_refused_by_its_part_with_what_is_allowed(text, part, allowed):
    with pytest.raises(SpecError) as error:
        parse_specs(text)
    assert part in str(error.value)
    assert allowed in str(error.value)


@pytest.mark.parametrize(
    ("percent", "size", "count"),
    [
        ("0.1", 1000, 1),
        ("0.1", 1499, 1),  # 1.499
        ("0.1", 1500, 2),  # 1.5: the even neighbour
        ("0.1", 2500, 2),  # 2.5: the even neighbour
        ("0.01", 884_736, 88),  # 88.47
        ("100", 7, 7),
        ("0.001", 100, 0),
    ],
)
def test_the_number_of_kept_weights_is_rounded_half_to_even(percent, size, count):
    assert Keep(percent=Decimal(percent), criterion="magnitude").count(size) == count


def test_variants_of_a_spec_are_made_without_text():
    spec = parse_spec("int4-g64+clip:mse+protect:model.layers.0+include:head")
    assert str(spec.base) == "int4-g64+include:head"
    assert str(spec.with_keep(0.01, "magnitude")) == (
        "int4-g64+keep0.01%:magnitude+clip:mse+protect:model.layers.0+include:head"
    )
    assert str(spec.with_keep("1", "activation", languages=("ka", "de"), scope="global").keep) == (
        "keep1%:activation[de,ka]@global"
    )
    assert spec.with_keep(1, "random").with_keep(0, "random") == spec
    assert str(parse_spec("int4-g64").with_only("model.layers.3")) == "int4-g64+only:model.layers.3"
    assert str(spec.with_protect("a", "b").base.with_protect("a")) == "int4-g64+protect:a+include:head"


def test_a_label_counts_many_names():
    spec = parse_spec("int4-g64+protect:a|b|c+only:x|y")
    assert spec.label == "int4-g64+protect:3 modules+only:x|y"
    assert parse_spec("none").label == "full precision"


def test_specs_of_six_bits_and_more_need_float32():
    needing = [
        text
        for text in ("none", "int2-row", "int5-g64", "nf4-b64", "int6-g64", "int8-row")
        if parse_spec(text).needs_float32
    ]
    assert needing == ["int6-g64", "int8-row"]


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("int4-g64+keep1%:magnitude+clip:mse", set()),
        ("int4-g64+keep1%:random", set()),
        ("int4-g64+keep1%:activation", {"input_rms"}),
        ("int4-g64+keep1%:superweight+clip:mse[de]", {"peaks", "input_rms"}),
        ("int4-g64+keep1%:sensitivity[de]", {"gradient_square"}),
    ],
)
def test_a_spec_names_the_measurements_it_needs(text, needs):
    assert parse_spec(text).needs == needs


def test_reading_a_spec_imports_no_torch():
    code = (
        "import sys; from evenbits.variants.quantization.spec import parse_spec; "
        "import evenbits.variants.quantization.planning; "
        "parse_spec('int4-g64+keep1%:activation[de]'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
