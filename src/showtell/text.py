"""Captions to words and back.

Training captions are lower-cased and cut into words the way the Penn Treebank convention (Marcus et al. 1993) cuts
English: "the man's dog isn't wet." becomes the, man, 's, dog, is, n't, wet. Punctuation is dropped, hyphens inside words
stay. `detokenize` undoes it for people to read.
"""

import re

_CLITIC = r"'(?:s|re|ve|ll|d|m)\b"
_TOKEN = re.compile(
    rf"\w+?(?=n't\b)|n't\b|{_CLITIC}"
    r"|\d+(?:[.,:]\d+)*(?:-?[^\W\d_]+)*"  # 3.50, 10:30, 2nd, 3-year
    r"|[^\W_]+(?:-[^\W_]+)*"
)
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u00b4": "'", "`": "'", "\u2010": "-", "\u2011": "-"})


def tokenize(caption: str) -> list[str]:
    """The lower-case words of a caption, without punctuation."""
    return _TOKEN.findall(caption.translate(_APOSTROPHES).lower())


def detokenize(tokens: list[str] | tuple[str, ...]) -> str:
    """Words joined by spaces, with the pieces of contractions and possessives put back on their words."""
    text = ""
    for token in tokens:
        glued = not text or token == "n't" or token.startswith("'")
        text += token if glued else " " + token
    return text


def as_sentence(text: str) -> str:
    """The caption with a capital letter and a full stop, as alt text wants it."""
    return text[:1].upper() + text[1:] + "." if text else text
