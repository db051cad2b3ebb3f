"""Batches of photos with all their captions: the data of one training step.

Shapes: B photos, K captions of each, T steps of the longest.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from showtell.arrays import Array
from showtell.metrics.result import Tokens
from showtell.text import RULES
from showtell.train.inputs.borrowing import Borrowed
from showtell.train.inputs.consensus import consensus_weights
from showtell.train.inputs.inputs import Inputs, Reading
from showtell.types import Sample
from showtell.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary, style_token

Captions = Mapping[str, Sequence[Tokens]]  # tokenised captions by photo name; each may begin with its style's token


@dataclass(frozen=True)
class Batch:
    """Photos and all their captions."""

    names: tuple[str, ...]  # of the B photos
    photos: Reading
    inputs: Tensor  # (B, K, T) int64: begin token, then words
    lengths: Tensor  # (B, K) int64: steps of each caption; 0 where a photo has fewer than K captions
    targets: Tensor  # (sum of lengths,) int64: the word after each input
    weights: Tensor  # (sum of lengths,) float32: loss weight of each target, about 1 on average

    def to(self, device: torch.device) -> "Batch":
        """The batch with its tensors on `device`."""
        tensors = {name: getattr(self, name).to(device) for name in ("inputs", "lengths", "targets", "weights")}
        return replace(self, **tensors)


@dataclass(frozen=True)
class ProcessBatch:
    """One process's photos of a batch, in parts. The last batch of an epoch may have none for some process."""

    photos: int  # of the whole batch
    parts: list[Batch]


def tokenized(samples: Sequence[Sample], rule: str) -> dict[str, list[list[str]]]:
    """The captions of each photo as words, by the text rule of that name; each after its style's token, if it has a style."""
    tokenize = RULES[rule].tokenize
    return {
        sample.image: [[*([style_token(sample.style)] if sample.style else []), *tokenize(text)] for text in sample.captions]
        for sample in samples
    }


class EncodedCaptions:
    """Padded token ids of captions: decoder inputs and targets. Arrays are (photos, K, T), `lengths` (photos, K)."""

    def __init__(
        self,
        captions: Sequence[Sequence[Tokens]],
        vocabulary: Vocabulary,
        *,
        rule: str,
        max_words: int,
        weights: Sequence[Sequence[float]] | None = None,
    ) -> None:
        """`captions` are tokenised by the text rule `rule`, grouped by photo, and so are their loss `weights`, by default 1.

        A caption may begin with its style's token, which replaces the begin token. Longer ones than `max_words` are cut.
        """
        left_out = () if RULES[rule].keeps_unknown else (UNKNOWN,)
        encoded: list[list[tuple[int, list[int], float]]] = []
        for many, their in zip(captions, weights or [[1.0] * len(many) for many in captions], strict=True):
            encoded.append([])
            for tokens, weight in zip(many, their, strict=True):
                begin, words = vocabulary.split_style(tokens)
                ids = [i for i in vocabulary.encode(words) if i not in left_out]
                if ids:
                    encoded[-1].append((begin, [*ids, END][: max_words + 1], weight))
        K = max((len(many) for many in encoded), default=0)
        T = max((len(ids) for many in encoded for _, ids, _ in many), default=0)
        begins = np.full((len(encoded), K, 1), BEGIN)
        self.max_words = max_words
        self.targets = np.full((len(encoded), K, T), PAD)
        self.lengths = np.zeros((len(encoded), K), np.int64)
        self.weights = np.ones((len(encoded), K), np.float32)
        for photo, rows in enumerate(encoded):
            for k, (begin, ids, weight) in enumerate(rows):
                begins[photo, k] = begin
                self.targets[photo, k, : len(ids)] = ids
                self.lengths[photo, k] = len(ids)
                self.weights[photo, k] = weight
        self.inputs = np.concatenate([begins, self.targets[..., :-1]], -1)

    @property
    def cut(self) -> int:
        """How many captions were longer than `max_words`."""
        last = self.targets[..., self.max_words : self.max_words + 1]
        return int(((last != END) & (self.lengths[..., None] > self.max_words)).sum())

    def batch(self, rows: Array, names: Sequence[str], photos: Reading) -> Batch:
        """The batch of the photos in these rows, whose names and reading are given."""
        lengths = self.lengths[rows]
        T = lengths.max(initial=0)
        mask = np.arange(T) < lengths[..., None]
        return Batch(
            tuple(names),
            photos,
            torch.from_numpy(self.inputs[rows, :, :T]),
            torch.from_numpy(lengths),
            torch.from_numpy(self.targets[rows, :, :T][mask]),
            torch.from_numpy(np.broadcast_to(self.weights[rows, :, None], mask.shape)[mask]),
        )


def weighted(
    captions: Captions,
    vocabulary: Vocabulary,
    *,
    rule: str,
    max_words: int,
    consensus: float = 0.0,
    borrowed: Mapping[str, Sequence[Borrowed]] | None = None,
) -> EncodedCaptions:
    """The photos' captions with their loss weights, `borrowed` ones of other photos after their own.

    Weights are those of `consensus_weights`, times one number so that their mean is 1.
    """
    plain = [[vocabulary.split_style(tokens)[1] for tokens in many] for many in captions.values()]
    weights = [many.tolist() for many in consensus_weights(plain, consensus)]
    whole = [list(many) for many in captions.values()]
    for many, their, others in zip(whole, weights, map((borrowed or {}).get, captions), strict=True):
        style = many[0][: len(many[0]) - len(vocabulary.split_style(many[0])[1])]
        many += [[*style, *words] for words, _ in others or ()]
        their += [weight for _, weight in others or ()]
    mean = np.mean([weight for their in weights for weight in their])
    scaled = [[weight / mean for weight in their] for their in weights]
    return EncodedCaptions(whole, vocabulary, rule=rule, max_words=max_words, weights=scaled)


class Batches:
    """Batches of photos with all their captions, in an order that follows from `seeds` and the epoch."""

    def __init__(
        self, names: Sequence[str], captions: EncodedCaptions, inputs: Inputs, size: int, seeds: tuple[int, ...]
    ) -> None:
        """`names` are the photos' in the order of `captions`; `size` is photos a batch."""
        self.names = list(names)
        self.captions = captions
        self.inputs = inputs
        self.size = size
        self.seeds = seeds

    def __len__(self) -> int:
        """Batches of an epoch."""
        return math.ceil(len(self.names) / self.size)

    def epoch(
        self, number: int, first: int = 0, *, rank: int = 0, processes: int = 1, parts: int = 1
    ) -> Iterator[ProcessBatch]:
        """The epoch's batches from batch `first` on, as the process of this rank sees them, each in at most `parts` parts."""
        order = np.random.default_rng([*self.seeds, number]).permutation(len(self.names))
        # Each epoch sees one view of each photo.
        views = np.random.default_rng([*self.seeds, number, 1]).integers(self.inputs.views, size=len(self.names))
        for start in range(first * self.size, len(order), self.size):
            rows = order[start : start + self.size]
            own = np.array_split(rows, processes)[rank]
            divided = np.array_split(own, min(parts, max(1, len(own))))
            yield ProcessBatch(len(rows), [self._batch(part, views[part]) for part in divided])

    def _batch(self, rows: Array, views: Array) -> Batch:
        names = [self.names[row] for row in rows]
        return self.captions.batch(rows, names, self.inputs.read(names, views))
