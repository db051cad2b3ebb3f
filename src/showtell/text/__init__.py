"""Captions to words and back.

`tokenize` cuts as the field's metrics do (see `text.ptb`): "The man's dog isn't wet." becomes the, man, 's, dog, is, n't, wet.
The model learns these words; `detokenize` puts them together again for people to read. `RULES` has the ways in which captions
can be read for training; whatever the rule, metrics cut by `tokenize`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from showtell.text import seed

__all__ = ["RULES", "TextRule", "as_sentence", "detokenize", "tokenize"]


def tokenize(caption: str) -> list[str]:
    """The words of a caption as the field's metrics count them: see `text.ptb`."""
    from showtell.text import ptb  # its rules take a while to compile, and captioning needs none of them

    return ptb.tokenize(caption)


@dataclass(frozen=True, slots=True)
class TextRule:
    """How captions become the words that a model learns."""

    tokenize: Callable[[str], list[str]]
    keeps_unknown: bool  # a word outside the vocabulary is read as <unknown>, or left out as if it had not been written


RULES = {"ptb": TextRule(tokenize, keeps_unknown=True), "seed": TextRule(seed.tokenize, keeps_unknown=False)}


def detokenize(tokens: Sequence[str]) -> str:
    """Words joined by spaces, with the pieces of contractions and possessives put back on their words."""
    text = ""
    for token in tokens:
        glued = not text or token == "n't" or token.startswith("'")
        text += token if glued else " " + token
    return text


def as_sentence(text: str) -> str:
    """The caption with a capital letter and a full stop, as alt text wants it."""
    return text[:1].upper() + text[1:] + "." if text else text
