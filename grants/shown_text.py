"""Text that an owner reads before consenting: what an app says about itself, and labels of keys.

Such text must look like what it is. It holds no control characters, no characters that change the direction of what
follows, and none that look like nothing. Names in every script pass, and so do emoji.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import urlsplit

MAX_MARKS = 4  # on one base character; languages need up to three, and a larger stack covers the lines around it

_INVISIBLE = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
# Letters and symbols without a glyph: Hangul fillers, the empty Braille pattern, a null notehead, a replaced object.
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800\U0001d159\ufffc")
# Marks without a glyph: grapheme joiner, Khmer inherent vowels, Mongolian and ideographic variation selectors.
_BLANK_MARK = re.compile("[\u034f\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0d\U000e0100-\U000e01ef]")
_EMOJI_STYLE = frozenset("\ufe0e\ufe0f")
_JOINERS = frozenset("\u200c\u200d")
# Scripts in whose words a joiner or a non-joiner may stand.
_JOINED = re.compile(
    "ARABIC|SYRIAC|MANDAIC|NKO|MONGOLIAN|DEVANAGARI|BENGALI|GURMUKHI|GUJARATI|ORIYA|TAMIL|TELUGU|KANNADA|MALAYALAM|"
    "SINHALA|KHMER|MYANMAR|TIBETAN"
).fullmatch
_SYMBOLS = {"So", "Sm", "Sk"}
_HOST = re.compile(r"[a-z0-9_.-]+|\[[0-9a-f:.]+\]")


def text_problem(text: str) -> str | None:
    """What is wrong with one line of text; ``None``: nothing."""
    marks = 0
    for before, char, after in zip(" " + text, text, text[1:] + " ", strict=False):
        category = unicodedata.category(char)
        if char in _JOINERS and (_joins_letters(before, after) or _joins_emoji(before, char, after)):
            continue
        if char in _EMOJI_STYLE and (unicodedata.category(before) in _SYMBOLS or before in "#*0123456789‼⁉〰〽"):
            continue
        if category in _INVISIBLE or (category == "Zs" and char != " "):
            return f"One line of visible characters; U+{ord(char):04X} is none."
        if char in _BLANK or char in _EMOJI_STYLE or _BLANK_MARK.match(char):
            return f"One line of visible characters; U+{ord(char):04X} is none."
        marks = marks + 1 if category[0] == "M" else 0
        if marks > MAX_MARKS or (marks == 1 and before == " "):
            return f"At most {MAX_MARKS} combining marks, on a letter."
    return None


def name_problem(text: str) -> str | None:
    """The same for a name, which has a letter or a digit."""
    if problem := text_problem(text):
        return problem
    if not any(unicodedata.category(char)[0] in "LN" for char in text):
        return "A name has at least one letter or digit."
    return None


def web_page_problem(url: str) -> str | None:
    """What is wrong with the URL of a web page. Its host is ASCII, since other letters may look like those."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "ASCII without spaces: write an international host name as xn--…, and percent-encode the rest."
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  raises where it is no number
    except ValueError:
        return "Not a URL."
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        return "Begins with https:// or http:// and names a host, nobody's user name."
    if not _HOST.fullmatch(parts.netloc.lower().removesuffix(f":{parts.port}")):
        return "The host is a name or an address."
    return None


def _joins_letters(before: str, after: str) -> bool:
    """Whether both are letters (or a mark and a letter) of one script that uses joiners, as in Persian می‌خواهم."""
    script = unicodedata.name(before, "").partition(" ")[0]
    of_one = _JOINED(script) and script == unicodedata.name(after, "").partition(" ")[0]
    return bool(of_one) and unicodedata.category(before)[0] in "LM" and unicodedata.category(after)[0] == "L"


def _joins_emoji(before: str, joiner: str, after: str) -> bool:
    symbols = before in _EMOJI_STYLE or unicodedata.category(before) in _SYMBOLS
    return joiner == "\u200d" and symbols and unicodedata.category(after) in {"So", "Sm"}
