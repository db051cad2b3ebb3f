"""Heuristics for captions with wrong text; a person must look at what they report."""

import re
import unicodedata

MAX_WORDS = 50  # the longest of Flickr8k's 40,460 captions has 38

# Frequent function words. A word of several languages counts for both sides.
_ENGLISH = """
    a an the and or of in on at to for with by from into over is are was were be being has have it its he she his her they their
    there this that these those as while who which up down out off near behind through not no one two
"""
_OTHER = """
    der die das ein eine einem einen und mit auf ist sind im dem den nicht vor zwei
    le la les un une des du et est sur dans avec deux au aux qui
    el los las una unos y en con de del sobre dos hay por que
    il lo gli di che uno sono nel nella sul per due
    o os um uma e do da dos das em na com
    een het van op met zijn twee
"""
_ENGLISH_WORDS, _OTHER_WORDS = frozenset(_ENGLISH.split()), frozenset(_OTHER.split())
_ENTITY = re.compile(r"&(#\d+|#x[0-9a-fA-F]+|amp|quot|apos|lt|gt|nbsp);")


def damage(caption: str) -> str | None:
    """A description of the characters that show wrong decoding, or None."""
    if "\ufffd" in caption:
        return "a replacement character"
    if any(unicodedata.category(character) == "Cc" and character not in "\t\n" for character in caption):
        return "a control character"
    if entity := _ENTITY.search(caption):
        return f"the HTML entity {entity[0]}"
    if not caption.isascii():
        for encoding in ("cp1252", "latin-1"):
            try:
                meant = caption.encode(encoding).decode("utf-8")
            except UnicodeError:
                continue
            return f"UTF-8 read as {encoding}; meant is {meant!r}"
    return None


def is_foreign(caption: str) -> bool:
    """Whether a caption looks like another language than English: by its script, or by function words."""
    letters = [character for character in caption if character.isalpha()]
    latin = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    if 2 * latin < len(letters):
        return True
    words = re.findall(r"[^\W\d_]+", caption.lower())
    english, other = sum(word in _ENGLISH_WORDS for word in words), sum(word in _OTHER_WORDS for word in words)
    return other >= 2 and other > 2 * english
