"""The report document as one HTML file that needs nothing else: no network, no server, no other file.

Scripts and styles are embedded, and a content security policy in the page forbids it to load anything. The rows of the
first model and spec, all verdicts, measurements and inputs stand in the page itself; scripts add figures, filters and
sorting. Equal documents give equal pages.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from evenbits.errors import ReportError
from evenbits.numbers import counted, estimate, number, p_value
from evenbits.printable import printable
from evenbits.report.actions import Action, actions, advice
from evenbits.report.cards import NOT_RUN, cards
from evenbits.report.described import described
from evenbits.report.figures import figures
from evenbits.report.glossary import GLOSSARY, plain_metric, tooltip
from evenbits.report.languages_table import COLUMNS, TIER, TIERS, cells, overview, payload
from evenbits.report.omissions import everything_left_out, left_out
from evenbits.report.opening import headline, levels_note, opening
from evenbits.report.sections import sections_of
from evenbits.studies.gate.harm import harms, specs_of

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["LIMIT", "MissingTemplatesError", "asset", "html", "templates"]

LIMIT = 6 * 1024 * 1024
"""Bytes that a report of 40 languages and 12 models stays below; more is written all the same."""

SCRIPTS = ("theme.js", "echarts.min.js", "report.js", "charts.js")


class MissingTemplatesError(ReportError):
    """The optional package that writes HTML is not installed."""


def html(document: Mapping[str, Any]) -> str:
    """Return the page of a checked document. `MissingTemplatesError` where jinja2 is not installed."""
    return templates().get_template("report.html").render(_context(document))


@cache
def templates() -> Environment:
    """Return the templates of all pages. `MissingTemplatesError` where jinja2 is not installed."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ModuleNotFoundError:
        raise MissingTemplatesError(
            "index.html needs jinja2: install evenbits[report], then `evenbits report report.json` writes it."
        ) from None
    environment = Environment(
        loader=PackageLoader("evenbits.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_plain,
    )
    environment.filters["number"] = _shown
    environment.filters["metric"] = plain_metric
    environment.filters["tooltip"] = tooltip
    environment.filters["prose"] = _prose
    environment.filters["breakable"] = _breakable
    environment.filters["estimate"] = estimate
    environment.filters["counted"] = counted
    environment.filters["p_value"] = lambda value: p_value(value).removeprefix("p ")
    return environment


def _shown(value: object) -> str:
    """Return a cell of a table: numbers rounded, None as a dash, texts as they are."""
    if value is None:
        return "–"  # noqa: RUF001 - the dash is meant
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return number(value) if isinstance(value, float) else str(value)


def _plain(value: object) -> object:
    """Return what a template is about to write: texts without codes that would turn or hide what stands around them."""
    from markupsafe import Markup

    return printable(value, lines=True) if isinstance(value, str) and not isinstance(value, Markup) else value


def _prose(text: str) -> str:
    """Return a sentence as markup in which what stands between backticks is code."""
    from markupsafe import Markup, escape

    parts = [escape(part) for part in printable(text).split("`")]
    if len(parts) % 2 == 0:  # a lone backtick is a character
        return escape(printable(text))
    code = Markup("<code>{}</code>")
    return Markup("").join(code.format(part) if place % 2 else part for place, part in enumerate(parts))


def _breakable(text: str) -> str:
    """Return a test's name as markup that may break after an underscore."""
    from markupsafe import Markup, escape

    return Markup("_<wbr>").join(escape(part) for part in printable(text).split("_"))


def _context(document: Mapping[str, Any]) -> dict[str, Any]:
    from markupsafe import Markup

    drawn, problems = figures(document)
    verdicts = cards(document)
    if any(card.name == "gate" for card in verdicts):  # who asks whether it may ship did not ask for hypotheses
        verdicts = [card for card in verdicts if card.verdict != NOT_RUN]
    about = described(document)
    shown = list(harms(document))
    everything = list(harms(document, every_spec=True))
    scripts = {name.partition(".")[0]: Markup(asset(name)) for name in SCRIPTS}  # noqa: S704 - our own files
    page_data: dict[str, Any] = {
        "damage": payload(document),
        "figures": {figure.id: [case.data for case in figure.cases] for figure in drawn},
    }
    return {
        "document": document,
        "cards": verdicts,
        "figures": drawn,
        "problems": problems,
        "lead": shown[0] if shown else None,
        "headline": headline(document),
        "answers": opening(document),
        "glossary": GLOSSARY,
        "levels_note": levels_note(document, shown[0].model if shown else None),
        "rows": cells(shown[0], described(document, shown[0].model)) if shown else [],
        "columns": COLUMNS,
        "pooled": any("pooled_bits" in row for row in document["damage"]),
        "noted": any(row["excess_bits"]["reason"] for row in document["damage"]),
        "tiers": [
            tier for place, tier in enumerate(TIERS) if any(row[TIER] == place for row in page_data["damage"]["rows"])
        ],
        "overview": overview(everything, about),
        "described": about,
        "actions": advice(document),
        "more_actions": _others(document),
        "specs": specs_of(document)[0],
        "sections": sections_of(document),
        "recipes": [_recipe(recipe) for recipe in document["recipes"]],
        "left_out": everything_left_out(document),
        "left_out_phrases": left_out(everything_left_out(document)),
        "facts": _environment_facts(document),
        "scripts": scripts,
        "style": Markup(asset("report.css")),  # noqa: S704 - our own file
        "policy": _policy(),
        "page_data": Markup(_embedded(page_data)),  # noqa: S704 - escaped there
    }


def _others(document: Mapping[str, Any]) -> list[Action]:
    """Return the advices that are not shown first; of several tests that say the same, one."""
    first = {(one.hypothesis, one.text) for one in advice(document)}
    found = {(one.hypothesis, one.text, one.subjects): one for one in actions(document)}
    return [one for (hypothesis, text, _), one in found.items() if (hypothesis, text) not in first]


@cache
def asset(name: str) -> str:
    """Return an embedded file. It must not hold what would end its element."""
    folder = files("evenbits.report")
    where = folder / "vendor" / "echarts" if name.startswith("echarts") else folder / "templates"
    text = (where / name).read_text(encoding="utf-8")
    if "</script" in text.lower() or "</style" in text.lower():
        raise ReportError(f"{name} cannot be embedded: it holds the end of its own element. Install evenbits again.")
    return text


@cache
def _policy() -> str:
    """Return the content security policy: the scripts of this page, by checksum, and nothing from anywhere."""
    digests = (hashlib.sha256(asset(name).encode()).digest() for name in SCRIPTS)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _embedded(value: object) -> str:
    """Return JSON that cannot end the element it stands in, whatever texts it holds."""
    text = json.dumps(_printable_texts(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _printable_texts(value: object) -> object:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(key)): _printable_texts(item) for key, item in value.items()}
    return [_printable_texts(item) for item in value] if isinstance(value, list | tuple) else value


def _recipe(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Return a recipe as a heading, a command where it has one, and all of it as JSON."""
    title = next((str(recipe[key]) for key in ("title", "name", "backend", "kind") if recipe.get(key)), "Recipe")
    where = " · ".join(str(recipe[key]) for key in ("model", "spec") if isinstance(recipe.get(key), str))
    command = recipe.get("command")
    return {
        "title": f"{title} – {where}" if where else title,  # noqa: RUF001 - the dash is meant
        "command": command if isinstance(command, str) else "",
        "text": json.dumps(recipe, ensure_ascii=False, allow_nan=False, indent=1),
    }


def _environment_facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    environment, timing = document["environment"], document["timing"]
    code = environment["code"]
    found = [("evenbits", code["version"] or "of unknown version")]
    if code["commit"]:
        found.append(("commit", f"{code['commit'][:12]}{' with changes' if code['dirty'] else ''}"))
    known_keys = ("code", "packages")
    found += [(key, _flat(value)) for key, value in environment.items() if key not in known_keys]
    found += [("started", timing["started"])] if "started" in timing else []
    found += [("took", f"{number(timing['seconds'])} s")] if "seconds" in timing else []
    found += [("packages", ", ".join(f"{name} {version}" for name, version in environment["packages"].items()))]
    return [(key, text) for key, text in found if text]


def _flat(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_flat(one) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(one)}" for key, one in value.items())
    return "" if value is None else str(value)
