"""Words and their ids. Four ids are special and different: padding, begin, end and unknown.

A model that was trained on data sets with different ways of describing photos has a begin token for each such style, the word
`<style:NAME>`. The token that a caption begins with decides how it is put, as a language token does in translation (Johnson et
al. 2017, "Google's Multilingual Neural Machine Translation System").
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

from showtell.decoding import SearchTokens
from showtell.errors import DataError, OptionError
from showtell.files import write_json
from showtell.text.characters import warn_of_sentences
from showtell.text.words import MAY_REPEAT, OF_SEVERAL

PAD, BEGIN, END, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<begin>", "<end>", "<unknown>")
_STYLE = "<style:"


def style_token(style: str) -> str:
    """The word that begins captions of a style."""
    return f"{_STYLE}{style}>"


@dataclass(frozen=True)
class Vocabulary:
    """`words[i]` is the word of id i; the first four are the special ones."""

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.words[:4] != SPECIAL:
            raise DataError(f"a vocabulary begins with {', '.join(SPECIAL)}; this one with {', '.join(self.words[:4])}")
        if len(set(self.words)) != len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise DataError(f"the vocabulary has the word {twice!r} twice")

    @classmethod
    def from_captions(cls, captions: Iterable[Sequence[str]], min_count: int) -> Self:
        """All words that occur at least `min_count` times in the tokenised captions, most frequent first.

        Tokens that begin with neither a letter, a digit nor an apostrophe, such as &, # and -lrb-, are not words to say.
        """
        captions = list(captions)
        warn_of_sentences(captions, 'train with vocabulary.text = "characters"')
        kept = _frequent(captions, min_count)
        if not kept:
            raise DataError(f"no word occurs {min_count} times in the training captions; lower vocabulary.min_count")
        return cls(SPECIAL + kept)

    def with_styles(self, styles: Sequence[str]) -> Self:
        """This vocabulary with begin tokens for the styles behind its words; those that it has stay."""
        new = tuple(style_token(style) for style in styles if style not in self.styles)
        return replace(self, words=self.words + new)

    @cached_property
    def styles(self) -> tuple[str, ...]:
        """Names of the styles that captions can begin in, the default first; empty for a model without."""
        return tuple(word.removeprefix(_STYLE)[:-1] for word in self.words if word.startswith(_STYLE))

    def split_style(self, tokens: Sequence[str]) -> tuple[int, Sequence[str]]:
        """The id that a caption begins with, of its style token or the default style's, and the caption without that."""
        if tokens and tokens[0].startswith(_STYLE):
            return self.ids[tokens[0]], tokens[1:]
        return self.search_tokens().begin, tokens

    def search_tokens(self, style: str = "") -> SearchTokens:
        """The special tokens of a search for captions in `style`, the default style where it is empty.

        Raises OptionError where the model does not have the style.
        """
        known = self.styles
        if style and style not in known:
            raise OptionError(f"style {style!r} is not one of this model's; it has {', '.join(known) or 'no styles'}")
        begins = [self.ids[style_token(name)] for name in known]
        begin = begins[known.index(style) if style else 0] if begins else BEGIN
        return SearchTokens(
            begin=begin,
            end=END,
            never=(PAD, BEGIN, UNKNOWN, *begins),
            may_repeat=tuple(self.ids[word] for word in sorted(MAY_REPEAT | OF_SEVERAL) if word in self.ids),
            conjunction=self.ids.get("and", -1),
        )

    def extended(self, captions: Iterable[Sequence[str]], min_count: int) -> Self:
        """This vocabulary with such words of the captions behind its own, whose ids stay."""
        return replace(self, words=self.words + tuple(word for word in _frequent(captions, min_count) if word not in self.ids))

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a JSON list of words. Raises DataError where the file is not one."""
        try:
            words = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a readable vocabulary ({error})") from None
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise DataError(f"{path}: a vocabulary is a JSON list of words")
        return cls(tuple(words))

    def save(self, path: Path) -> None:
        """To a JSON list of words, atomically."""
        write_json(path, list(self.words))

    @cached_property
    def ids(self) -> dict[str, int]:
        """Id of each word."""
        return {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, tokens: Sequence[str]) -> list[int]:
        """Ids of the words; words that are not in the vocabulary become UNKNOWN."""
        return [self.ids.get(token, UNKNOWN) for token in tokens]

    def decode(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Words of the ids, special ones left out."""
        return tuple(self.words[number] for number in ids if number >= len(SPECIAL))


def _frequent(captions: Iterable[Sequence[str]], min_count: int) -> tuple[str, ...]:
    """Words to say that occur at least `min_count` times, most frequent first."""
    counts = Counter(word for caption in captions for word in caption if word[0].isalnum() or word[0] == "'")
    return tuple(sorted((word for word, count in counts.items() if count >= min_count), key=lambda word: (-counts[word], word)))
