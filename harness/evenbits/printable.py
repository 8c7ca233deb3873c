"""Texts of users as text: names, reasons and messages may hold anything, and are shown as what they are.

Every output escapes in one place: a terminal and a log through `printable`, markup through the function of its own
format, which starts from it (`evenbits.report.markdown.escaped`, the templates of `evenbits.report.html`,
`evenbits.report.tables.cell`, `evenbits.report.junit`, `evenbits.commands.console`).
"""

from __future__ import annotations

import unicodedata

__all__ = ["capital", "printable"]

DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Codes that turn the direction of what follows: a name could make a line read as another one."""

HIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories of control codes, halves of surrogate pairs, and separators of lines and paragraphs."""

TAGS = range(0xE0000, 0xE0080)
"""Invisible copies of ASCII."""


def printable(text: str, *, lines: bool = False) -> str:
    r"""Return `text` with every control, direction and invisible code written out, as in `\x1b` and `\u202e`.

    Line feeds stay where `lines`; otherwise these, carriage returns and tabs become blanks, so that the text keeps to
    one line. Letters of any script, joiners within words and emoji stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character, lines=lines) for character in text)


def _shown(character: str, *, lines: bool) -> str:
    if character == "\n" and lines:
        return character
    if character in "\n\r\t":
        return " "
    code = ord(character)
    if unicodedata.category(character) in HIDDEN or character in DIRECTION or code in TAGS:
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return character


def capital(text: str) -> str:
    """Return `text` as the beginning of a sentence; the rest of it stays as it is."""
    return text[:1].upper() + text[1:]
