"""Captions to words and back.

`tokenize` cuts as the field's metrics do (see `text.ptb`): "The man's dog isn't wet." becomes the, man, 's, dog, is, n't, wet.
The model learns these words; `detokenize` puts them together again for people to read. `RULES` has the ways in which captions
can be read for training, `TOKENIZERS` those in which metrics cut them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from showtell.text import characters, original

__all__ = ["RULES", "TOKENIZERS", "TextRule", "as_sentence", "detokenize", "pieces", "tokenize"]


def tokenize(caption: str) -> list[str]:
    """The words of a caption as the field's metrics count them: see `text.ptb`."""
    from showtell.text import ptb  # its rules take a while to compile, and captioning needs none of them

    return ptb.tokenize(caption)


@dataclass(frozen=True, slots=True)
class TextRule:
    """How captions become the words that a model learns."""

    tokenize: Callable[[str], list[str]]
    keeps_unknown: bool  # a word outside the vocabulary is read as <unknown>, or left out as if it had not been written
    spaced: bool = True  # words of scripts that know no spaces are written with spaces between them all the same
    scored_by: str = "ptb"  # of `TOKENIZERS`


RULES = {
    "ptb": TextRule(tokenize, keeps_unknown=True),
    "original": TextRule(original.tokenize, keeps_unknown=False),
    "characters": TextRule(characters.tokenize, keeps_unknown=True, spaced=False, scored_by=characters.NAME),
}
TOKENIZERS: Mapping[str, Callable[[str], list[str]]] = {"ptb": tokenize, characters.NAME: characters.tokenize}


def detokenize(tokens: Sequence[str], *, spaced: bool = True) -> str:
    """The caption that people would write for these words: it is cut into the same words again. `spaced` is the rule's."""
    return "".join(pieces(tokens, spaced=spaced))


def pieces(tokens: Sequence[str], *, spaced: bool = True) -> list[str]:
    """What each of the words adds to the caption, with the space before it where there is one: "the", " man", "'s", " dog"."""
    found = [_written(token) for token in tokens[:1]]
    for before, token in pairwise(tokens):
        half = _HALVES.get((before, token))
        joined = _joined(before, token) or not (spaced or _stands_apart(before, token))
        found.append(half or ("" if joined else " ") + _written(token))
    return found


_CLITICS = frozenset(["n't", "'s", "'m", "'d", "'re", "'ve", "'ll"])
# What follows the first half of words that the tokenizer cuts in two.
_HALVES = {
    **{("can", "not"): "not", ("gon", "na"): "na", ("wan", "na"): "na", ("got", "ta"): "ta", ("gim", "me"): "me"},
    **{("lem", "me"): "me", ("'t", "is"): "is", ("'t", "was"): "was", ("aujourd", "hui"): "'hui"},
    **{("c", "est"): "'est", ("s", "est"): "'est", ("s", "il"): "'il", ("s", "ils"): "'ils"},
}
_BRACKETS = {"-lrb-": "(", "-rrb-": ")", "-lsb-": "[", "-rsb-": "]", "-lcb-": "{", "-rcb-": "}"}
_OPENING, _CLOSING = ("-lrb-", "-lsb-", "-lcb-"), ("-rrb-", "-rsb-", "-rcb-")
# Words that the tokenizer leaves whole only in capitals: AT&T, US$, Mass.
_CAPITALS = re.compile(r"[a-z]+(?:[&+][a-z]+)+|[a-z]+\$|(?:ark|az|del|ill|la|mass|miss|ore|pa|tex|wash)\.")


def _joined(before: str, token: str) -> bool:
    """Whether `token` is written without a space after `before`."""
    return (
        token in _CLITICS
        or token in _CLOSING
        or before in _OPENING
        or (token[0].isdigit() and (before == "#" or before.endswith("$")))
        or (token == "%" and before[-1].isdigit())
        or (before in ("y'", "j'") and token[0].isalpha())  # y'all
    )


def _stands_apart(before: str, token: str) -> bool:
    return not (characters.is_character(before) or characters.is_character(token))


def _written(token: str) -> str:
    if _CAPITALS.fullmatch(token):
        return token.capitalize() if token.endswith(".") else token.upper()
    for name, bracket in _BRACKETS.items():
        token = token.replace(name, bracket)
    return token.replace("\u00a0", " ")


def as_sentence(text: str, *, cut: bool = False) -> str:
    """The caption with a capital letter and a full stop, as alt text wants it; with an ellipsis where it was `cut`."""
    return text[:1].upper() + text[1:] + (" \u2026" if cut else "" if text.endswith(".") else ".") if text else text
