"""The character tokenizer, for scripts without spaces between words: Chinese, Japanese, Thai, Lao, Khmer, Burmese.

Every character of these scripts is a token, with the marks written on it, as Chinese captions are usually scored. `text.ptb`
tokenizes other words (Latin, Korean, numbers). Punctuation is dropped.
"""

import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence

from showtell.errors import ShowtellWarning

NAME = "characters"  # the tokenizer's name in reports
_LETTERS = (
    "\u3005-\u3007\u3040-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e80-\u0eff\u1000-\u109f\u1780-\u17d3"
)
# Marks written on a character: vowel signs and tone marks of Thai and similar scripts, voicing marks of kana.
_MARKS = (
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd"
    "\u102b-\u103e\u17b4-\u17d3\u3099\u309a\uff9e\uff9f\ufe00-\ufe0f"
)
_CHARACTER = re.compile(f"[{_LETTERS}][{_MARKS}]*")
_RUN = re.compile(f"[{_LETTERS}{_MARKS}]{{6}}")


def tokenize(caption: str) -> list[str]:
    """The characters, and words of other scripts, of one caption: lower case, without punctuation."""
    from showtell.text import ptb  # its rules take long to compile

    tokens: list[str] = []
    start = 0
    caption = unicodedata.normalize("NFC", caption)
    for match in _CHARACTER.finditer(caption):
        tokens += _others(ptb.tokenize(caption[start : match.start()]))
        tokens.append(match[0])
        start = match.end()
    return tokens + _others(ptb.tokenize(caption[start:]))


def _others(tokens: list[str]) -> list[str]:
    return [token for token in tokens if not all(unicodedata.category(sign).startswith("P") for sign in token)]


def is_character(token: str) -> bool:
    """Whether a token is a character of a script without spaces."""
    return _CHARACTER.fullmatch(token) is not None


def warn_of_sentences(captions: Iterable[Sequence[str]], remedy: str) -> None:
    """Gives a ShowtellWarning where tokens of over a tenth of the captions are whole sentences of a script without spaces."""
    unspaced = [any(map(_RUN.search, tokens)) for tokens in captions]
    if sum(unspaced) > 0.1 * len(unspaced):
        what = f"{sum(unspaced):,} of {len(unspaced):,} captions have no spaces between words, as in Chinese, Japanese and Thai"
        warnings.warn(f"{what}: whole sentences count as one word; {remedy}", ShowtellWarning, stacklevel=3)
