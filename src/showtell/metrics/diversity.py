"""How varied and how whole captions are, beside how right they are.

Captioners that score well may still say the same few things about everything (van Miltenburg, Elliott and Vossen 2018,
"Measuring the Diversity of Automatic Image Descriptions"), and those trained on a metric say things twice or stop in the middle
of a sentence.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

from showtell.metrics.result import Tokens

# English words that hardly a caption ends with, unless it was broken off; "up", "down", "by" and the like may end one.
_SELDOM_LAST = frozenset(["a", "an", "the", "at", "of", "from", "with", "into", "onto", "and", "or", "to", "for", "in", "on"])


@dataclass(frozen=True, slots=True)
class Diversity:
    """Shares lie between 0 and 1. Lengths count tokens.

    `length_ratio` is the candidates' total length by that of the closest references, as in BLEU's brevity penalty;
    `vocabulary` counts the candidates' different words and `vocabulary_use` is the share of the references' words that they
    use; `distinct` is the share of different captions among the candidates; `unseen` is the share that is no training
    caption, or None where no training captions were given.
    """

    length_ratio: float
    mean_length: float
    vocabulary: int
    vocabulary_use: float
    distinct: float
    unseen: float | None
    repeated: float
    unfinished: float


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
    unseen = None
    if training is not None:
        seen = {tuple(tokens) for tokens in training}
        unseen = sum(tokens not in seen for tokens in captions) / len(captions)
    return Diversity(
        length_ratio=length_ratio,
        mean_length=sum(map(len, captions)) / len(captions),
        vocabulary=len(words),
        vocabulary_use=len(words & known) / len(known) if known else 0.0,
        distinct=len(set(captions)) / len(captions),
        unseen=unseen,
        repeated=sum(_repeats(tokens) for tokens in captions) / len(captions),
        unfinished=sum(bool(tokens) and tokens[-1] in _SELDOM_LAST for tokens in captions) / len(captions),
    )


def _repeats(tokens: Tokens) -> bool:
    pairs = list(pairwise(tokens))
    return len(set(pairs)) < len(pairs)
