"""Captions to words and back.

`tokenize` cuts as the field's metrics do (see `text.ptb`): "The man's dog isn't wet." becomes the, man, 's, dog, is, n't, wet.
The model learns these words; `detokenize` puts them together again for people to read.
"""

from collections.abc import Sequence

from showtell.text.ptb import tokenize

__all__ = ["as_sentence", "detokenize", "tokenize"]


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
