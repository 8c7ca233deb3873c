"""Language tags and what is known about languages."""

import pickle
import tomllib
from importlib.resources import files

import pytest
from evenbits.errors import CorpusError
from evenbits.text.languages import describe, known_languages, normalise
from hypothesis import given
from hypothesis import strategies as st

# FLORES-200 spellings; every one must be a language of its own here.
FLORES = """
ace_Arab ace_Latn acm_Arab acq_Arab aeb_Arab afr_Latn ajp_Arab aka_Latn als_Latn amh_Ethi apc_Arab arb_Arab ars_Arab
ary_Arab arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn azb_Arab azj_Latn bak_Cyrl bam_Latn ban_Latn bel_Cyrl bem_Latn
ben_Beng bho_Deva bjn_Arab bjn_Latn bod_Tibt bos_Latn bug_Latn bul_Cyrl cat_Latn ceb_Latn ces_Latn cjk_Latn ckb_Arab
crh_Latn cym_Latn dan_Latn deu_Latn dik_Latn dyu_Latn dzo_Tibt ell_Grek eng_Latn epo_Latn est_Latn eus_Latn ewe_Latn
fao_Latn fij_Latn fin_Latn fon_Latn fra_Latn fur_Latn fuv_Latn gaz_Latn gla_Latn gle_Latn glg_Latn grn_Latn guj_Gujr
hat_Latn hau_Latn heb_Hebr hin_Deva hne_Deva hrv_Latn hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn
jav_Latn jpn_Jpan kab_Latn kac_Latn kam_Latn kan_Knda kas_Arab kas_Deva kat_Geor kaz_Cyrl kbp_Latn kea_Latn khk_Cyrl
khm_Khmr kik_Latn kin_Latn kir_Cyrl kmb_Latn kmr_Latn knc_Arab knc_Latn kon_Latn kor_Hang lao_Laoo lij_Latn lim_Latn
lin_Latn lit_Latn lmo_Latn ltg_Latn ltz_Latn lua_Latn lug_Latn luo_Latn lus_Latn lvs_Latn mag_Deva mai_Deva mal_Mlym
mar_Deva min_Arab min_Latn mkd_Cyrl mlt_Latn mni_Beng mos_Latn mri_Latn mya_Mymr nld_Latn nno_Latn nob_Latn npi_Deva
nso_Latn nus_Latn nya_Latn oci_Latn ory_Orya pag_Latn pan_Guru pap_Latn pbt_Arab pes_Arab plt_Latn pol_Latn por_Latn
prs_Arab quy_Latn ron_Latn run_Latn rus_Cyrl sag_Latn san_Deva sat_Olck scn_Latn shn_Mymr sin_Sinh slk_Latn slv_Latn
smo_Latn sna_Latn snd_Arab som_Latn sot_Latn spa_Latn srd_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn swh_Latn szl_Latn
tam_Taml taq_Latn taq_Tfng tat_Cyrl tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi tpi_Latn tsn_Latn tso_Latn tuk_Latn
tum_Latn tur_Latn twi_Latn tzm_Tfng uig_Arab ukr_Cyrl umb_Latn urd_Arab uzn_Latn vec_Latn vie_Latn war_Latn wol_Latn
xho_Latn ydd_Hebr yor_Latn yue_Hant zho_Hans zho_Hant zsm_Latn zul_Latn
""".split()  # noqa: SIM905 - reads as the table it is

# The catalogues of gnome-user-docs, in gettext's spelling.
GNOME = """
as bg ca cs da de el en_GB eo es eu fa fi fr gl gu he hi hr hu id it ja ka kn ko lt lv mk ml mr nb nl oc pa pl pt pt_BR
ro ru sk sl sr sr@latin sv ta te tg th tr ug uk vi zh_CN zh_HK zh_TW
""".split()  # noqa: SIM905 - reads as the table it is


@pytest.mark.parametrize(
    ("written", "tag"),
    [
        ("deu_Latn", "de"),
        ("zh_Hans", "zh-Hans"),
        ("zh-CN", "zh-Hans"),
        ("zho_Hans", "zh-Hans"),
        ("cmn_Hans", "zh-Hans"),
        ("zh", "zh-Hans"),
        ("zh_Hant", "zh-Hant"),
        ("zh-TW", "zh-Hant"),
        ("zh_HK", "zh-Hant-HK"),
        ("sr", "sr-Cyrl"),
        ("sr_RS", "sr-Cyrl"),
        ("srp_Cyrl", "sr-Cyrl"),
        ("sr_Latn", "sr-Latn"),
        ("sr@latin", "sr-Latn"),
        ("ca@valencia", "ca-valencia"),
        ("sr@Latn", "sr-Latn"),
        ("sr_RS.UTF-8@ijekavian", "sr-Cyrl-ijekavsk"),
        ("sr@ijekavianlatin", "sr-Latn-ijekavsk"),
        ("be@tarask", "be-tarask"),
        ("de_DE@euro", "de"),
        ("be_BY@latin.UTF-8", "be-Latn"),
        ("pt_BR", "pt-BR"),
        ("pt_PT", "pt"),
        ("por_Latn", "pt"),
        ("es_AR", "es-AR"),
        ("de_DE.UTF-8", "de"),
        ("en_US", "en"),
        ("en_GB", "en-GB"),
        ("ckb", "ckb"),
        ("ckb_Arab", "ckb"),
        ("hsb", "hsb"),
        ("uzn_Latn", "uz"),
        ("uz_Cyrl", "uz-Cyrl"),
        ("khk_Cyrl", "mn"),
        ("arb_Arab", "ar"),
        ("arz_Arab", "arz"),
        ("prs_Arab", "fa-AF"),
        ("tgl_Latn", "fil"),
        ("iw", "he"),
        (" DE ", "de"),
    ],
)
def test_a_tag_gets_its_shortest_standard_form(written, tag):
    assert normalise(written) == tag


@pytest.mark.parametrize("written", [*FLORES, *GNOME])
def test_normalising_twice_changes_nothing(written):
    assert normalise(normalise(written)) == normalise(written)


def test_every_flores_spelling_is_a_language_of_its_own():
    tags = [normalise(written) for written in FLORES]
    assert len(set(tags)) == len(FLORES)


@pytest.mark.parametrize("written", ["german", "xx", "", "foo-bar", "und", "12", "mul", "zxx"])
def test_what_is_no_language_is_named_with_an_example(written):
    with pytest.raises(CorpusError, match=r"sr-Latn") as caught:
        normalise(written)
    assert repr(written) in str(caught.value)


def test_an_unknown_gettext_modifier_is_named():
    with pytest.raises(CorpusError, match=r"'de@foo' has the unknown modifier @foo; known are @latin"):
        normalise("de@foo")


@given(st.text(max_size=12))
def test_any_text_is_a_tag_or_a_corpus_error(text):
    try:
        tag = normalise(text)
    except CorpusError:
        return
    assert normalise(tag) == tag


def test_serbian_is_described_with_the_source_of_every_value():
    serbian = describe("sr_Latn")
    assert (serbian.tag, serbian.name, serbian.script) == ("sr-Latn", "Serbian (Latin)", "Latn")
    assert (serbian.family, serbian.branch) == ("Indo-European", "Slavic")
    # Joshi et al. count Serbian among the 18 languages of class 4; class 4 is high by the fixed rule.
    assert (serbian.resource_class, serbian.tier) == (4, "high")
    assert serbian.sources["family"] == "Glottolog 5"
    assert "2004.09095" in serbian.sources["resource_class"]
    assert serbian.sources["script"] == "part of the tag"


@pytest.mark.parametrize(
    ("tag", "resource_class", "tier"),
    [("en", 5, "high"), ("ko", 4, "high"), ("uk", 3, "middle"), ("ga", 2, "low"), ("hsb", 1, "low"), ("te", 1, "low")],
)
def test_the_tier_follows_from_the_class_by_the_fixed_rule(tag, resource_class, tier):
    assert (describe(tag).resource_class, describe(tag).tier) == (resource_class, tier)


@pytest.mark.parametrize("written", [*FLORES, *GNOME])
def test_languages_of_flores_and_gnome_have_family_and_script(written):
    language = describe(written)
    assert language.family is not None
    if "_" in written and len(written) == len("deu_Latn"):
        assert language.script in {written[-4:], None}


def test_languages_of_django_have_family_script_and_class():
    locale = pytest.importorskip("django.conf.locale")
    # The taxonomy lists Bokmål and Nynorsk, not Norwegian as a whole.
    unknown = [code for code in locale.LANG_INFO if describe(code).resource_class is None]
    assert unknown == ["no"]
    assert all(describe(code).script and describe(code).family for code in locale.LANG_INFO)


def test_a_language_outside_the_table_still_has_name_and_script_and_reasons():
    language = describe("bua")  # Buriat is no row of the table; CLDR knows its script
    assert "bua" not in known_languages()
    assert (language.name, language.script) == ("Buriat", "Cyrl")
    assert language.family is language.resource_class is language.tier is None
    assert language.sources["family"] == "unknown: bua is not in the table of languages"
    assert language.sources["tier"] == "unknown: no resource class"


def test_a_script_cldr_does_not_know_is_none_instead_of_latin():
    language = describe("quy")
    assert language.script is None
    assert language.sources["script"].startswith("unknown")
    assert describe("quy_Latn").script == "Latn"


def test_a_language_the_taxonomy_lists_twice_has_no_class_but_a_reason():
    assert describe("ff").resource_class is None
    assert describe("ff").sources["resource_class"] == "unknown: listed twice in the taxonomy (fula 1, fulah 0)"


@pytest.mark.parametrize("tag", ["de", "eu", "quy", "bua", "ff", "zh-TW"])
def test_no_value_is_missing_without_a_reason(tag):
    fields = describe(tag).to_json()
    sources = fields.pop("sources")
    assert set(sources) == set(fields) - {"tag"}
    for name in sources:
        if name != "branch":  # an isolate has no branch; nothing is unknown about that
            assert (fields[name] is None) == sources[name].startswith("unknown"), name


def test_exposure_decides_the_tier_by_thirds_of_the_logarithmic_range():
    # From 10^3 to 10^9 bytes the thirds end at 10^5 and 10^7.
    exposure = {"en": 10**9, "deu_Latn": 10**7, "sw": 10**6, "hsb": 10**5, "ga": 10**3, "ug": 0}
    tiers = {tag: describe(tag, exposure=exposure).tier for tag in exposure}
    assert tiers == {"en": "high", "deu_Latn": "high", "sw": "middle", "hsb": "low", "ga": "low", "ug": "low"}
    assert describe("de", exposure=exposure).exposure_bytes == 10**7
    assert describe("de", exposure=exposure).resource_class == 5  # the proxy stays visible


def test_two_levels_of_exposure_are_high_and_low_whatever_their_numbers():
    exposure = dict.fromkeys(("de", "fr", "ko", "ja", "ru"), 10**5) | {"hsb": 10**6}
    assert describe("de", exposure=exposure).tier == "low"
    assert describe("hsb", exposure=exposure).tier == "high"


def test_equal_exposure_makes_every_language_middle():
    assert describe("de", exposure={"de": 5, "hsb": 5}).tier == "middle"


def test_a_language_without_exposure_has_no_tier_and_the_reason():
    language = describe("fr", exposure={"de": 5})
    assert language.tier is None
    assert language.sources["tier"] == "unknown: the exposure given has no entry for fr"


def test_negative_exposure_is_refused():
    with pytest.raises(CorpusError, match=r"exposure of hsb is negative"):
        describe("de", exposure={"de": 1, "hsb": -1})


def test_a_description_crosses_processes():
    language = describe("de")
    assert pickle.loads(pickle.dumps(language)) == language  # noqa: S301 - our own bytes


def test_the_table_has_standard_keys_and_classes_in_range():
    table = tomllib.loads(files("evenbits.text").joinpath("languages.toml").read_text(encoding="utf-8"))
    for tag, row in table["languages"].items():
        assert normalise(tag).partition("-")[0] == tag
        assert set(row) <= {"family", "branch", "class", "class_unknown"}
        assert row.get("class", 0) in range(6)
        assert not ("class" in row and "class_unknown" in row)
    # The taxonomy's own counts of its upper classes: 7 languages in class 5, 18 in class 4, 28 in class 3.
    counts = [sum(row.get("class") == level for row in table["languages"].values()) for level in (5, 4, 3)]
    assert counts == [7, 18, 28]


def test_training_text_that_is_equal_but_for_the_last_paragraph_makes_no_tiers():
    exposure = {"de": 164_001, "fr": 164_432, "ig": 164_100}
    assert {describe(tag, exposure=exposure).tier for tag in exposure} == {"middle"}
    assert describe("ig", exposure={"de": 200, "ig": 100}).tier == "low"
