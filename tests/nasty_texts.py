"""Texts that are something else to a program that shows them: names, reasons and messages may be any of these."""

NASTY = {
    "rich tag": "a[/bold]b[red]c[de,en]",
    "rich link": "[link=https://evil.example]x[/link]",
    "emoji code": "dir:ok:smile:",
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "end of element": "</script></style><!--]]>",
    "attribute": "\" onmouseover='alert(1)' x=\"",
    "image": "![x](https://evil.example/p.png)",
    "link": "[x](javascript:alert(1)) [y]: https://evil.example",
    "bare address": "https://evil.example www.evil.example a@evil.example",
    "mention": "@everyone #1 :tada:",
    "formula": "$\\alpha$ =1+cmd|' /C calc'!A0",
    "spreadsheet": '=HYPERLINK("https://evil.example")',
    "code": "`x` ``` ~~~ **b** _i_ ~~s~~",
    "table": "a|b\\|c\n| d |\n\n# heading\n- item\n> quote",
    "escape codes": "\x1b]0;title\x07\x1b[2J\x1b[31mred\x9b1m",
    "control codes": "\x00\x01\b\r\x0b\x0c\x85\x7f",
    "direction": "\u202egnp.txt\u202c \u2066x\u2069 \u200f",
    "separators": "a\u2028b\u2029c",
    "half a surrogate pair": "a\ud800b\udcff",
    "hidden": "a\U000e0041b",
    "template": "{{ 7*7 }} {% raw %} %s {0} ${HOME}",
    "entities": "&lt;b&gt; &amp;amp; &#x202e;",
}

OBEYED = {
    chr(code)
    for code in (
        *range(32),
        *range(127, 160),
        0x061C,
        0x200E,
        0x200F,
        *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
        *range(0xD800, 0xE000),
        *range(0xE0000, 0xE0080),
    )
}
"""Codes that must reach no output, line feeds of its own lines aside."""


def obeyed(text):
    """Return the codes in `text` that a terminal, a viewer or a reader would obey."""
    return sorted(OBEYED & set(text) - {"\n"})
