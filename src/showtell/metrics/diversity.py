"""Diversity, repetition and hallucination in captions, which the other metrics miss.

Captioners with good scores may give many photos the same captions (van Miltenburg, Elliott and Vossen 2018, "Measuring the
Diversity of Automatic Image Descriptions"). Those trained on a metric repeat words or stop in the middle of a sentence. On
photos unlike their training photos they hallucinate people and dogs (Rohrbach et al. 2018, "Object Hallucination in Image
Captioning").
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import NamedTuple

from showtell.metrics.result import Tokens
from showtell.text.words import DOGS, MAY_REPEAT, PEOPLE

# English words at the end of an incomplete caption; a complete one may end with "up", "down" or "by".
_SELDOM_LAST = frozenset(["a", "an", "the", "at", "of", "from", "with", "into", "onto", "and", "or", "to", "for", "in", "on"])


@dataclass(frozen=True, slots=True)
class Diversity:
    """Statistics of a set of candidates. Shares are between 0 and 1; lengths count tokens.

    `length_ratio` is the candidates' total length divided by that of the closest references, as in BLEU's brevity penalty.
    `vocabulary` counts the candidates' different words, and `vocabulary_use` is the share of the references' words among them.
    `distinct` is the share of different captions, `unseen` of captions that are no training caption (None without these).

    `repeated_bigram` is the share of captions with a repeated bigram, `incomplete` of captions with an incomplete ending.
    `around_and` is the share with the same word on both sides of "and", `doubled_word` with a word twice in a row,
    `repeated_word` with a repeated word that is not in `text.words.MAY_REPEAT`, and `repetition` with any of the three.
    `false_people` and `false_dogs` are the shares that name a person or a dog where no reference of the photo does.
    """

    length_ratio: float
    mean_length: float
    vocabulary: int
    vocabulary_use: float
    distinct: float
    unseen: float | None
    repeated_bigram: float
    incomplete: float
    around_and: float
    doubled_word: float
    repeated_word: float
    repetition: float
    false_people: float
    false_dogs: float


def diversity(
    candidates: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
    length_ratio: float,
    training: Iterable[Tokens] | None = None,
) -> Diversity:
    """The diversity of N tokenized candidates (at least one), given their references and all training captions.

    `length_ratio` comes from BLEU's counts.
    """
    words = set(chain.from_iterable(candidates))
    known = set(chain.from_iterable(chain.from_iterable(references)))
    captions = [tuple(tokens) for tokens in candidates]

    def share(of: Iterable[bool]) -> float:
        return sum(of) / len(captions)

    unseen = None
    if training is not None:
        seen = {tuple(tokens) for tokens in training}
        unseen = share(tokens not in seen for tokens in captions)
    kinds = [repetition(tokens) for tokens in captions]
    pairs = list(zip(captions, references, strict=True))
    return Diversity(
        length_ratio=length_ratio,
        mean_length=sum(map(len, captions)) / len(captions),
        vocabulary=len(words),
        vocabulary_use=len(words & known) / len(known) if known else 0.0,
        distinct=len(set(captions)) / len(captions),
        unseen=unseen,
        repeated_bigram=share(_repeats(pairwise(tokens)) for tokens in captions),
        incomplete=share(bool(tokens) and tokens[-1] in _SELDOM_LAST for tokens in captions),
        around_and=share(kind.around_and for kind in kinds),
        doubled_word=share(kind.doubled_word for kind in kinds),
        repeated_word=share(kind.repeated_word for kind in kinds),
        repetition=share(map(any, kinds)),
        false_people=share(PEOPLE.falsely(tokens, others) for tokens, others in pairs),
        false_dogs=share(DOGS.falsely(tokens, others) for tokens, others in pairs),
    )


class Repetition(NamedTuple):
    """The kinds of repetition in a caption: "a white and white cat", "a tree tree", "a cat sits by a cat"."""

    around_and: bool
    doubled_word: bool
    repeated_word: bool


def repetition(tokens: Tokens) -> Repetition:
    """The kinds of repetition in a tokenized caption."""
    return Repetition(
        around_and=any(tokens[i] == "and" and tokens[i - 1] == tokens[i + 1] for i in range(1, len(tokens) - 1)),
        doubled_word=any(before == word for before, word in pairwise(tokens)),
        repeated_word=_repeats(word for word in tokens if word not in MAY_REPEAT),
    )


def _repeats(items: Iterable[Hashable]) -> bool:
    listed = list(items)
    return len(set(listed)) < len(listed)
