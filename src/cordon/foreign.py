"""What strangers wrote, made fit for where it is shown: a site's words, an aggregator's, an unknown file's.

Whoever writes into a page, a header, a table, a log or a terminal calls the function of that place at its
end, on everything, so that nobody has to know where a word came from. Names that strangers gave are cut by
`name` where they are first quoted: nobody needs all of them, and whoever chose them chose what readers see.
"""

from __future__ import annotations

import html as _html
import re
import unicodedata
from collections.abc import Collection

# How much of a stranger's sentence, and of a name that a stranger gave, is shown (characters).
LONGEST, NAME = 400, 16
# How many of many names are shown.
SHOWN = 3
# Categories of Unicode that are no writing: controls, escape sequences, turns of direction, what has no
# glyph, and line ends other than a line feed.
UNWRITTEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
UNNAMED = re.compile(r"[^A-Za-z0-9_.+-]")
# What spreadsheets take for a formula at a cell's beginning.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def lines(text: str) -> str:
    """``text`` for a terminal or a log: line feeds and tabs stay, other controls are spelt out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(sign if sign in "\n\t" else _spelt(sign) for sign in text)


def words(text: object, longest: int = LONGEST) -> str:
    """``text`` on one line of at most ``longest`` signs, without what moves a cursor or turns writing."""
    said = str(text)[: longest + 1]
    shown = "".join(map(_spelt, said))
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def name(text: object) -> str:
    """The beginning of a name that a stranger gave; ``?`` stands for each sign that is of no plain name."""
    said = str(text)
    return UNNAMED.sub("?", said[:NAME]) + ("…" if len(said) > NAME else "")


def names(texts: Collection[object]) -> str:
    """The first few of ``texts`` as `name` has them, sorted, and how many more there are."""
    shown = sorted(map(name, texts))[:SHOWN]
    more = len(texts) - len(shown)
    return (", ".join(shown) or "none") + (f" and {more:,} more" if more else "")


def html(text: str) -> str:
    """``text`` for the content of an element, or of an attribute in double quotes."""
    return _html.escape(lines(text), quote=False).replace('"', "&quot;")


def markdown(text: str) -> str:
    """``text`` for Markdown that becomes HTML: no element, no link, no code, no image."""
    return re.sub(r"[\[\]`!]", lambda sign: f"&#{ord(sign[0])};", html(text))


def vcf(text: object) -> str:
    """``text`` between the double quotes of a VCF header's value (VCF 4.3, section 1.4), on one line.

    Longer than others: a calibration's epsilon stands there with all that belongs to it.
    """
    return words(text, longest=10 * LONGEST).replace("\\", "\\\\").replace('"', '\\"')


def csv_cell(text: str) -> str:
    """``text`` for a cell of a table that may be opened in a spreadsheet, which must not compute it."""
    shown = words(text, longest=max(LONGEST, len(text) * 10))
    return f"'{shown}" if text.startswith(FORMULA) else shown


def _spelt(sign: str) -> str:
    if sign.isascii():
        return sign if sign.isprintable() else f"\\x{ord(sign):02x}"
    if unicodedata.category(sign) not in UNWRITTEN:
        return sign
    return f"\\u{ord(sign):04x}" if ord(sign) < 0x10000 else f"\\U{ord(sign):08x}"
