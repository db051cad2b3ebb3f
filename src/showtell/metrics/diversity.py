"""How varied and how whole captions are, beside how right they are.

Captioners that score well may still say the same few things about everything (van Miltenburg, Elliott and Vossen 2018,
"Measuring the Diversity of Automatic Image Descriptions"), and those trained on a metric say things twice or stop in the middle
of a sentence. On photos unlike those that they learnt from, they see the people and dogs that they know (Rohrbach et al. 2018,
"Object Hallucination in Image Captioning").
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import NamedTuple

from showtell.metrics.result import Tokens
from showtell.text.words import DOGS, MAY_REPEAT, PEOPLE

# English words that hardly a caption ends with, unless it was broken off; "up", "down", "by" and the like may end one.
_SELDOM_LAST = frozenset(["a", "an", "the", "at", "of", "from", "with", "into", "onto", "and", "or", "to", "for", "in", "on"])


@dataclass(frozen=True, slots=True)
class Diversity:
    """Shares lie between 0 and 1. Lengths count tokens.

    `length_ratio` is the candidates' total length by that of the closest references, as in BLEU's brevity penalty;
    `vocabulary` counts the candidates' different words and `vocabulary_use` is the share of the references' words that they
    use; `distinct` is the share of different captions among the candidates; `unseen` is the share that is no training
    caption, or None where no training captions were given.

    `repeated` is the share of captions with a pair of words twice, `unfinished` of those that break off. `around_and` is the
    share with one word on both sides of "and", `doubled` with a word twice in a row, `word_twice` with a word twice that is not
    in `text.words.MAY_REPEAT`, and `said_twice` with any of the three. `false_people` and `false_dogs` are the shares that name
    a person or a dog where none of the photo's references does.
    """

    length_ratio: float
    mean_length: float
    vocabulary: int
    vocabulary_use: float
    distinct: float
    unseen: float | None
    repeated: float
    unfinished: float
    around_and: float
    doubled: float
    word_twice: float
    said_twice: float
    false_people: float
    false_dogs: float


def diversity(
    candidates: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
    length_ratio: float,
    training: Iterable[Tokens] | None = None,
) -> Diversity:
    """The diversity of N tokenized candidates (one at least), against their references and all training captions.

    `length_ratio` is known from BLEU's counts.
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
    twice = [said_twice(tokens) for tokens in captions]
    pairs = list(zip(captions, references, strict=True))
    return Diversity(
        length_ratio=length_ratio,
        mean_length=sum(map(len, captions)) / len(captions),
        vocabulary=len(words),
        vocabulary_use=len(words & known) / len(known) if known else 0.0,
        distinct=len(set(captions)) / len(captions),
        unseen=unseen,
        repeated=share(_twice(pairwise(tokens)) for tokens in captions),
        unfinished=share(bool(tokens) and tokens[-1] in _SELDOM_LAST for tokens in captions),
        around_and=share(found.around_and for found in twice),
        doubled=share(found.doubled for found in twice),
        word_twice=share(found.word for found in twice),
        said_twice=share(any(found) for found in twice),
        false_people=share(PEOPLE.falsely(tokens, others) for tokens, others in pairs),
        false_dogs=share(DOGS.falsely(tokens, others) for tokens, others in pairs),
    )


class SaidTwice(NamedTuple):
    """Whether a caption says a thing twice, and how: "a white and white cat", "a tree tree", "a cat sits by a cat"."""

    around_and: bool
    doubled: bool
    word: bool


def said_twice(tokens: Tokens) -> SaidTwice:
    """What a tokenized caption says twice."""
    return SaidTwice(
        around_and=any(tokens[i] == "and" and tokens[i - 1] == tokens[i + 1] for i in range(1, len(tokens) - 1)),
        doubled=any(before == word for before, word in pairwise(tokens)),
        word=_twice(word for word in tokens if word not in MAY_REPEAT),
    )


def _twice(items: Iterable[Hashable]) -> bool:
    found = list(items)
    return len(set(found)) < len(found)
