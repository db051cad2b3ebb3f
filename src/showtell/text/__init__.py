"""Tokenizers: captions to tokens, and tokens to captions.

`tokenize` is the tokenizer of the field's metrics (see `text.ptb`): "The man's dog isn't wet." becomes the, man, 's, dog, is,
n't, wet. The model learns these tokens; `detokenize` joins them to a caption. `RULES` has the text rules of training,
`TOKENIZERS` the tokenizers of metrics.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from showtell.text import characters, original

__all__ = ["RULES", "TOKENIZERS", "TextRule", "as_sentence", "detokenize", "pieces", "tokenize"]


def tokenize(caption: str) -> list[str]:
    """The tokens of a caption as the field's metrics count them: see `text.ptb`."""
    from showtell.text import ptb  # its rules take long to compile, and captioning does not need them

    return ptb.tokenize(caption)


@dataclass(frozen=True, slots=True)
class TextRule:
    """How captions become the tokens that a model learns."""

    tokenize: Callable[[str], list[str]]
    keeps_unknown: bool  # whether a word outside the vocabulary becomes <unknown> or is left out
    spaced: bool = True  # whether words of scripts without spaces are written with spaces between them
    scored_by: str = "ptb"  # one of `TOKENIZERS`


RULES = {
    "ptb": TextRule(tokenize, keeps_unknown=True),
    "original": TextRule(original.tokenize, keeps_unknown=False),
    "characters": TextRule(characters.tokenize, keeps_unknown=True, spaced=False, scored_by=characters.NAME),
}
TOKENIZERS: Mapping[str, Callable[[str], list[str]]] = {"ptb": tokenize, characters.NAME: characters.tokenize}


def detokenize(tokens: Sequence[str], *, spaced: bool = True) -> str:
    """The caption of these tokens as people write it; `tokenize` returns the same tokens. `spaced` is the rule's."""
    return "".join(pieces(tokens, spaced=spaced))


def pieces(tokens: Sequence[str], *, spaced: bool = True) -> list[str]:
    """The text that each token adds to the caption, with the space before it: "the", " man", "'s", " dog"."""
    texts = [_written(token) for token in tokens[:1]]
    for before, token in pairwise(tokens):
        half = _HALVES.get((before, token))
        joined = _joined(before, token) or not (spaced or _is_separate(before, token))
        texts.append(half or ("" if joined else " ") + _written(token))
    return texts


_CLITICS = frozenset(["n't", "'s", "'m", "'d", "'re", "'ve", "'ll"])
# The second halves of words that the tokenizer splits.
_HALVES = {
    **{("can", "not"): "not", ("gon", "na"): "na", ("wan", "na"): "na", ("got", "ta"): "ta", ("gim", "me"): "me"},
    **{("lem", "me"): "me", ("'t", "is"): "is", ("'t", "was"): "was", ("aujourd", "hui"): "'hui"},
    **{("c", "est"): "'est", ("s", "est"): "'est", ("s", "il"): "'il", ("s", "ils"): "'ils"},
}
_BRACKETS = {"-lrb-": "(", "-rrb-": ")", "-lsb-": "[", "-rsb-": "]", "-lcb-": "{", "-rcb-": "}"}
_OPENING, _CLOSING = ("-lrb-", "-lsb-", "-lcb-"), ("-rrb-", "-rsb-", "-rcb-")
# Words that the tokenizer keeps whole only in capitals: AT&T, US$, Mass.
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


def _is_separate(before: str, token: str) -> bool:
    return not (characters.is_character(before) or characters.is_character(token))


def _written(token: str) -> str:
    if _CAPITALS.fullmatch(token):
        return token.capitalize() if token.endswith(".") else token.upper()
    for name, bracket in _BRACKETS.items():
        token = token.replace(name, bracket)
    return token.replace("\u00a0", " ")


def as_sentence(text: str, *, cut: bool = False) -> str:
    """The caption with a capital letter and a full stop, as alt text; with an ellipsis where it was `cut`."""
    return text[:1].upper() + text[1:] + (" \u2026" if cut else "" if text.endswith(".") else ".") if text else text
