"""Users' text in the formats of a report: one function for each, so that text stays text.

The page escapes in its templates (`evenbits.report.html`), the terminal and logs by `evenbits.printable.printable`.
"""

from __future__ import annotations

import re

from evenbits.printable import printable

__all__ = ["csv_text", "markdown_code", "markdown_prose", "markdown_text"]

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters that make a spreadsheet take a text for a formula."""

TAME = re.compile(r"[\w.:/@%+=,~-]+(?: [\w.:/@%+=,~-]+)*")
"""What can stand between backticks as it is: names of models, specs and tests."""

BROKEN_UP = (
    # An element inside keeps a Markdown processor from reading these as a link, a mention, a formula, an emoji, an
    # issue; entities would not, as such filters look at the text after Markdown has been read.
    (re.compile(r"://"), ":<span>//</span>"),
    (re.compile(r"\bwww\.", re.IGNORECASE), "www<span>.</span>"),
    (re.compile(r"@(?=\w)"), "<span>@</span>"),
    (re.compile(r"#(?=\d)"), "<span>#</span>"),
    (re.compile(r"\$"), "<span>$</span>"),
    (re.compile(r":(?=[\w+-]+:)"), "<span>:</span>"),
)
AT_START = re.compile(r"^(?:(?=[>])|(?=(?:#{1,6}|[-+]|=+|-+)(?:\s|$))|\d+(?=[.)](?:\s|$)))")
"""Where a backslash keeps the start of a line from being a quotation, heading, list or rule."""


def csv_text(text: str) -> str:
    """Return `text` for a cell of a table: in one line, and with an apostrophe where it would run as a formula.

    Test names and messages can hold anything; blanks before a sign do not keep a spreadsheet from running it.
    """
    return f"'{printable(text)}" if text.lstrip(" ").startswith(FORMULA) else printable(text)


def markdown_text(text: str, *, starts: bool = True) -> str:
    """Return `text` in one line of Markdown that shows it: no markup, HTML, link, image, mention, formula or emoji.

    `starts`: it may stand at the start of a line, where it must not become a heading, quotation or list.
    """
    shown = _escaped(" ".join(printable(text).split()))
    return AT_START.sub(lambda found: f"{found[0]}\\", shown) if starts else shown


def _escaped(line: str) -> str:
    shown = line.replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;")
    shown = re.sub(r"([|`*~])", r"\\\1", shown)
    shown = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", shown)  # inside a word it is a letter like any other
    shown = re.sub(r"\](?=[(\[:])", r"\\]", shown)
    for pattern, broken_up in BROKEN_UP:
        shown = pattern.sub(broken_up, shown)
    return shown


def markdown_code(text: str) -> str:
    """Return `text` as code in a line of Markdown."""
    return f"`{text}`" if TAME.fullmatch(text) and text.isascii() else f"<code>{markdown_text(text)}</code>"


def markdown_prose(text: str, *, starts: bool = True) -> str:
    """Return a sentence in one line of Markdown in which what stands between backticks is code."""
    parts = " ".join(printable(text).split()).split("`")
    if len(parts) % 2 == 0 or len(parts) == 1:  # a lone backtick is a character
        return markdown_text(text, starts=starts)
    shown = [markdown_code(part) if place % 2 else _escaped(part) for place, part in enumerate(parts)]
    return AT_START.sub(lambda found: f"{found[0]}\\", "".join(shown)) if starts else "".join(shown)
