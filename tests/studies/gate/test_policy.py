"""The policy of the gate: what is refused and how, which limit wins, and the draft from a measured report."""

import copy
import datetime as dt
import json
import tomllib
from datetime import date

import pytest
from evenbits.errors import PolicyError, ReportError
from evenbits.report.policy_draft import policy_draft
from evenbits.studies.gate.decision import decide_language
from evenbits.studies.gate.policy import METRICS, Policy, load_policy
from hypothesis import example, given, settings
from hypothesis import strategies as st

TEXT = """
inconclusive = "pass"

[metric.excess_bits]
limit = 20
inconclusive = "fail"
tier.low = {limit = 30}
language.sw = {limit = 50.5, inconclusive = "pass"}
language.sr.inconclusive = "pass"

[metric.kl.language.de]
limit = 0.1

[metric.disparity]
limit = 5

[baseline]
limit = 0.5

[[waiver]]
metric = "excess_bits"
language = "sw"
owner = "Ada"
reason = "accepted for the pilot"
expires = 2030-01-31

[[waiver]]
metric = "excess_bits"
language = "sw"
spec = "int4-g64"
owner = "Bo"
reason = "known"
expires = "2031-01-31"
"""


def policy(text=TEXT):
    return Policy.parse(tomllib.loads(text))


def test_language_wins_over_tier_over_metric_over_the_top():
    found = policy()

    def limit(language, tier):
        one = found.limit("excess_bits", language=language, tier=tier)
        return one.bound, one.inconclusive, one.where

    assert limit("de", "high") == (20, "fail", "metric.excess_bits")
    assert limit("yo", "low") == (30, "fail", "metric.excess_bits.tier.low")
    assert limit("sw", "low") == (50.5, "pass", "metric.excess_bits.language.sw")
    # sr-Cyrl takes its limit from the metric and what an inconclusive result does from its own table
    assert limit("sr-Cyrl", "middle") == (20, "pass", "metric.excess_bits")
    assert found.limit("kl", language="sw", tier="low") is None
    assert found.limit("kl", language="de", tier="high").inconclusive == "pass"  # from the top
    assert found.limit("relative_increase", language="de", tier="high") is None
    assert found.overall == ("disparity",)
    assert found.languages == {"sw", "sr-Cyrl", "de"}
    assert (found.baseline.limit, found.baseline.inconclusive) == (0.5, "pass")


def test_the_waiver_that_names_most_of_a_case_applies():
    found = policy()
    assert found.waiver("excess_bits", language="sw", model="m", spec="int4-g64").owner == "Bo"
    assert found.waiver("excess_bits", language="sw", model="m", spec="int3-row").owner == "Ada"
    assert found.waiver("excess_bits", language="de", model="m", spec="int3-row") is None
    assert found.waivers[1].expires == dt.date(2031, 1, 31)


@pytest.mark.parametrize("reverse", [False, True])
def test_of_two_waivers_that_name_as_much_the_one_that_is_valid_longer_applies_wherever_it_stands(reverse):
    own = {"metric": "excess_bits", "language": "sw", "reason": "known"}
    waivers = [
        {**own, "model": "m", "owner": "Ada", "expires": dt.date(2020, 1, 1)},
        {**own, "spec": "int4-g64", "owner": "Bo", "expires": dt.date(2099, 1, 1)},
    ]
    content = {**tomllib.loads(TEXT), "waiver": waivers[::-1] if reverse else waivers}
    found = Policy.parse(content).waiver("excess_bits", language="sw", model="m", spec="int4-g64")
    assert found.owner == "Bo"


def test_the_json_form_gives_the_same_policy_back():
    found = policy()
    assert Policy.parse(json.loads(json.dumps(found.content))) == found


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("limit = 3", "the top has the unknown key 'limit'; allowed are inconclusive, metric, waiver, baseline."),
        ("", "limits nothing: add a table such as [metric.excess_bits]"),
        ("[metric.perplexity]\nlimit = 1", "metric has the unknown key 'perplexity'; allowed are excess_bits,"),
        ("[metric.kl]\nlimits = 1", "metric.kl has the unknown key 'limits'; allowed are limit, inconclusive, tier"),
        ("[metric.kl]", "metric.kl sets no limit"),
        ("[metric.kl]\nlimit = -1", "metric.kl.limit must be a number above 0, not -1."),
        ("[metric.kl]\nlimit = nan", "metric.kl.limit must be a number above 0, not nan."),
        ("[metric.kl]\nlimit = true", "metric.kl.limit must be a number above 0, not True."),
        ("[metric.kl]\ntier.poor.limit = 1", "metric.kl.tier has the unknown key 'poor'; allowed are high, middle"),
        ("[metric.kl]\nlanguage.sw = 1", "metric.kl.language.sw must be a table, not 1."),
        ("[metric.kl]\nlanguage.'not a tag'.limit = 1", "metric.kl.language names 'not a tag'"),
        ("[metric.kl.language]\nsr = {limit = 1}\nsr-Cyrl = {limit = 2}", "names sr-Cyrl twice"),
        ("[metric.disparity]\nlimit = 1\ntier.low.limit = 2", "metric.disparity has the unknown key 'tier'"),
        ("inconclusive = 'maybe'\n[metric.kl]\nlimit = 1", 'inconclusive must be "fail" or "pass", not \'maybe\'.'),
        ("waiver = 1\n[metric.kl]\nlimit = 1", "waiver must be a list of tables headed [[waiver]], not 1."),
        ("[metric.kl]\nlimit = 1\n[[waiver]]\nmetric = 'kl'", "waiver 1 lacks `owner`"),
    ],
)
def test_what_is_wrong_is_named_with_its_key(text, sentence):
    with pytest.raises(PolicyError) as caught:
        policy(text)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"expires": "tomorrow"}, "expires of waiver 1 must be a date such as 2027-01-31, not 'tomorrow'"),
        ({"expires": dt.datetime(2030, 1, 1, tzinfo=dt.UTC)}, "expires of waiver 1 must be a date"),
        ({"owner": " "}, "owner of waiver 1 must be text"),
        ({"metric": "speed"}, "metric of waiver 1 is 'speed'; allowed are excess_bits"),
        ({"metric": "disparity"}, "waiver 1 names a language, but disparity is taken over all of them"),
        ({"until": "2030-01-01"}, "waiver 1 has the unknown key 'until'"),
        ({"language": "??"}, "language of waiver 1 names '??'"),
        ({"spec": "int4-g65x"}, "spec of waiver 1 is no spec: "),
    ],
)
def test_an_impossible_waiver_is_refused(change, sentence):
    content = tomllib.loads(TEXT)
    content["waiver"][0].update(change)
    with pytest.raises(PolicyError, match=r"^the policy: ") as caught:
        Policy.parse(content)
    assert sentence in str(caught.value)


def test_two_waivers_of_one_case_are_refused():
    content = tomllib.loads(TEXT)
    content["waiver"].append(content["waiver"][0])
    with pytest.raises(PolicyError, match="waiver 3 covers the same case as waiver 1"):
        Policy.parse(content)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"[metric", "is not TOML: "),
        (b"\xff\xfe", "is not UTF-8 at byte 0"),
        (b"a = " + b"1" * 5000, "holds a number of thousands of digits"),
        (b"a = " + b"[" * 5000, "is nested more than 64 levels deep"),
        (None, "is not there. `evenbits policy init REPORT` writes a policy."),
    ],
)
def test_a_file_that_is_no_policy_is_named(tmp_path, data, sentence):
    file = tmp_path / "policy.toml"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(PolicyError) as caught:
        load_policy(file)
    assert sentence in str(caught.value)
    assert str(file) in str(caught.value)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@st.composite
def spoilt(draw):
    """(content, path): a valid policy with the entry at `path` replaced, removed or added."""
    content = tomllib.loads(TEXT)
    path = draw(st.sampled_from([place for place in places(content) if place]))
    holder = content
    for key in path[:-1]:
        holder = holder[key]
    match draw(st.sampled_from(["replace", "remove", "add"])):
        case "replace":
            holder[path[-1]] = draw(junk)
        case "remove":
            del holder[path[-1]]
        case "add" if isinstance(holder, dict):
            key = draw(st.text(max_size=8))
            holder[key] = draw(junk)
            path = (*path[:-1], key)
    return content, path


def refusal(content):
    """Return why `content` is no policy, None where it is one."""
    try:
        Policy.parse(content, source="p.toml")
    except PolicyError as error:
        return str(error)
    return None


@settings(max_examples=200, deadline=None)
@given(spoilt())
def test_a_spoilt_policy_is_refused_with_a_sentence_that_names_the_key(change):
    content, path = change
    said = refusal(content)
    if said is None:  # some changes leave a policy valid
        return
    keys = [repr(key)[1:-1] for key in path if isinstance(key, str)]
    assert any(key in said for key in keys), (said, path)
    assert "\n" not in said


@settings(max_examples=200, deadline=None)
@given(spoilt().map(lambda change: change[0]) | junk)
@example({"metric": {"kl": {"limit": 10**400}}})
@example({"metric": {"kl": {"limit": 1}}, "waiver": [[]]})
@example({"inconclusive": []})
def test_any_document_is_a_policy_or_refused_with_a_sentence(content):
    try:
        found = Policy.parse(content, source="p.toml")
    except PolicyError as error:
        sentence = str(error)
        assert sentence.startswith("p.toml")
        assert sentence.endswith(".")
    else:
        assert Policy.parse(found.content) == found
        for metric in METRICS:  # whatever was accepted can be asked
            found.limit(metric, language="sw", tier="low")
            found.waiver(metric, language="sw", model="m", spec="s")


# -- the draft ---------------------------------------------------------------------------------------------------------


def estimate(value, low, high):
    return {"value": value, "low": low, "high": high, "n": 12, "method": "BCa", "reason": None}


def row(language, value, *, spec="int4-g64", kl=0.05):
    return {
        "model": "m",
        "spec": spec,
        "language": language,
        "segments": 12,
        "tokens": 9,
        "utf8_bytes": 30,
        "nll_full": 5.0,
        "nll_quantized": 6.0,
        "excess_bits": estimate(value, value - 1, value + 1),
        "relative_increase": estimate(value / 100, value / 100 - 1, value / 100 + 1),
        "rms_delta_p": 0.1,
        "kl_nats_per_token": {"mean": kl, "p50": kl, "p99": None, "low": kl / 2, "high": kl * 2},
        "top1_changed": 0.5,
        "bits_per_weight": 4.25,
        "excess_bits_by_segment": 3 * [value - 1, value, value, value + 1],
    }


def document(*rows):
    return {
        "inputs": {
            "models": [{"text": "m"}],
            "specs": [{"text": "int4-g64"}],
            "corpus": {"text": "t", "digest": "d"},
        },
        "environment": {"seed": 0},
        "damage": list(rows),
    }


def test_the_draft_is_the_upper_end_plus_the_margin_rounded_up():
    text = policy_draft(document(row("de", 10.0), row("sw", 30.0), row("sw", 20.0, spec="int8-row")), margin=0.1)
    content = tomllib.loads(text)
    found = Policy.parse(content)
    assert found.limit("excess_bits", language="de", tier="high").bound == 12.1  # (10 + 1) x 1.1
    assert found.limit("excess_bits", language="sw", tier="low").bound == 34.1  # the larger spec: (30 + 1) x 1.1
    assert found.limit("excess_bits", language="xx", tier=None).bound == 34.1  # a new language: the largest
    assert found.limit("kl", language="de", tier="high").bound == 0.11  # .05 x 2 x 1.1
    assert "plus 10%" in text


def test_what_was_only_measured_to_compare_with_sets_no_limit():
    given = document(row("de", 10.0), row("de", 90.0, spec="int2-row"))
    given["inputs"]["specs"] = [
        {"text": "int4-g64", "digest": "d", "asked": True},
        {"text": "int2-row", "digest": "d", "asked": False},
    ]
    text = policy_draft(given, margin=0.1)
    alone = policy_draft({**given, "damage": [row("de", 10.0)]}, margin=0.1)
    assert text == alone
    assert "int2-row" not in text


def test_a_damage_near_zero_gets_a_limit_that_noise_stays_below():
    found = Policy.parse(tomllib.loads(policy_draft(document(row("de", -1.5)))))
    assert found.limit("excess_bits", language="de", tier="high").bound == 0.1  # its upper end is -.5


def answers(loss, *, documents=40):
    found = {**estimate(loss, loss - 0.05, loss + 0.05), "n": documents}
    return {"task": "xnli_de", "documents": documents, "loss": found, "of": []}


@pytest.mark.parametrize(
    ("loss", "documents", "outcome", "said"),
    [
        (0.02, 40, "pass", ""),
        (0.2, 40, "fail", "lies above the limit"),
        (0.1, 40, "inconclusive", "name further tasks with --tasks"),
        (0.02, 8, "inconclusive", "8 documents pass nothing"),
    ],
)
def test_lost_answers_have_a_limit_like_lost_bits(loss, documents, outcome, said):
    found = Policy.parse({"metric": {"task_loss": {"limit": 0.1}}})
    given = row("de", 1.0) | {"tasks": answers(loss, documents=documents)}
    (decision,) = decide_language(found, given, language="de", model="m", spec="s", today=date(2026, 1, 1))
    assert decision.outcome == outcome
    assert said in f"{decision.because} {decision.action}"


@pytest.mark.parametrize(
    ("high", "action"),
    [
        # the limit is .1: 12 segments reach .02 below the value of .09 and so much above it; .01 takes 2 x 2 as many
        (0.11, 'Measure more segments (about 48 would decide, as is), or set `inconclusive = "pass"` in the policy.'),
        # .1 above it: ten times as far as the limit is away
        (0.19, "More segments hardly help so near the limit (more than 1000 would be needed): "),
    ],
)
def test_no_advice_asks_for_more_segments_than_anybody_has(high, action):
    found = Policy.parse({"metric": {"excess_bits": {"limit": 0.1}}})
    damage = row("de", 0.09) | {"segments": 12, "excess_bits": {**estimate(0.09, 0.08, high), "n": 12}}
    (decision,) = decide_language(
        found, damage, language="de", model="m", spec="s", today=date(2026, 1, 1), more_text="as is"
    )
    assert decision.action.startswith(action)


def test_a_limit_of_lost_answers_without_any_task_is_a_missing_result():
    found = Policy.parse({"metric": {"task_loss": {"limit": 0.1}}})
    (decision,) = decide_language(found, row("de", 1.0), language="de", model="m", spec="s", today=date(2026, 1, 1))
    assert decision.outcome == "missing"
    assert decision.estimate.reason == "no task in de was run; name one with --tasks"


def test_the_draft_limits_lost_answers_where_tasks_were_run():
    text = policy_draft(document(row("de", 10.0) | {"tasks": answers(0.1)}, row("sw", 30.0)))
    found = Policy.parse(tomllib.loads(text))
    assert 0.165 < found.limit("task_loss", language="de", tier="high").bound < 0.167  # (.1 + .05) x 1.1
    assert "task_loss" not in policy_draft(document(row("de", 10.0)))


def test_a_report_without_damage_gives_no_policy():
    with pytest.raises(ReportError, match="no damage rows with an interval"):
        policy_draft(document())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["de", "sw", "yo", "ug"]), st.floats(-5, 1e4)), min_size=1, unique_by=lambda p: p[0]
    ),
    st.floats(0, 2),
)
@example(measured=[("de", 5e-324), ("sw", 1.0)], margin=0.0)  # a ratio that no float can hold
def test_the_measured_report_passes_its_own_draft(measured, margin):
    from evenbits.studies.gate.decision import Outcome, decide_language

    rows = [row(tag, value) for tag, value in measured]
    found = Policy.parse(tomllib.loads(policy_draft(document(*copy.deepcopy(rows)), margin=margin)))
    for one in rows:
        decisions = decide_language(
            found, one, language=one["language"], model="m", spec="s", today=dt.date(2026, 1, 1)
        )
        assert {decision.outcome for decision in decisions} == {Outcome.PASS}
