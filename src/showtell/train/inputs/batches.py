"""Batches of photos with all their captions: what one training step sees.

Shapes: B photos, K captions of each, T steps of the longest.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from showtell.decoding import Array
from showtell.metrics.result import Tokens
from showtell.text import RULES
from showtell.train.inputs.borrowing import Borrowed
from showtell.train.inputs.consensus import consensus_weights
from showtell.train.inputs.inputs import PhasedInputs
from showtell.train.recipe import Recipe
from showtell.types import Sample
from showtell.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary, style_token


@dataclass(frozen=True)
class Batch:
    """Photos and all their captions."""

    names: tuple[str, ...]  # of the B photos
    read: Array  # (B, ...): features or pixels, see Inputs.read
    inputs: Tensor  # (B, K, T) int64: begin token, then words
    lengths: Tensor  # (B, K) int64: steps of each caption; 0 where a photo has fewer than K captions
    targets: Tensor  # (sum of lengths,) int64: the word after each input
    weights: Tensor  # (sum of lengths,) float32: how much each target counts, about 1 on average

    def to(self, device: torch.device) -> "Batch":
        """The batch with its tensors on `device`."""
        tensors = {name: getattr(self, name).to(device) for name in ("inputs", "lengths", "targets", "weights")}
        return replace(self, **tensors)


@dataclass(frozen=True)
class Share:
    """What one process computes of a batch, in parts; the last batch of an epoch may have no photos for some process."""

    photos: int  # of the whole batch
    parts: list[Batch]


def tokenized(samples: Sequence[Sample], rule: str) -> dict[str, list[list[str]]]:
    """The captions of each photo as words, cut by the text rule of that name; each with its style's token before it, if any."""
    tokenize = RULES[rule].tokenize
    return {
        sample.image: [[*([style_token(sample.style)] if sample.style else []), *tokenize(text)] for text in sample.captions]
        for sample in samples
    }


class Written:
    """The captions of some photos as ids, padded: what a decoder reads and what it is to say."""

    def __init__(
        self,
        captions: Sequence[Sequence[Tokens]],
        vocabulary: Vocabulary,
        recipe: Recipe,
        weights: Sequence[Sequence[float]] | None = None,
    ) -> None:
        """`captions` are tokenised, those of each photo together, and so are `weights`, 1 by default.

        A caption may begin with its style's token, which is read instead of the begin token.
        """
        limit = recipe.training.max_words
        left_out = () if RULES[recipe.vocabulary.text].keeps_unknown else (UNKNOWN,)
        encoded: list[list[tuple[int, list[int], float]]] = []
        for many, their in zip(captions, weights or [[1.0] * len(many) for many in captions], strict=True):
            encoded.append([])
            for tokens, weight in zip(many, their, strict=True):
                begin, words = vocabulary.split_style(tokens)
                ids = [i for i in vocabulary.encode(words) if i not in left_out]
                if ids:
                    encoded[-1].append((begin, [*ids, END][: limit + 1], weight))
        K = max((len(many) for many in encoded), default=0)
        T = max((len(ids) for many in encoded for _, ids, _ in many), default=0)
        begins = np.full((len(encoded), K, 1), BEGIN)
        self.targets = np.full((len(encoded), K, T), PAD)
        self.lengths = np.zeros((len(encoded), K), np.int64)
        self.weights = np.ones((len(encoded), K), np.float32)
        for photo, rows in enumerate(encoded):
            for k, (begin, ids, share) in enumerate(rows):
                begins[photo, k] = begin
                self.targets[photo, k, : len(ids)] = ids
                self.lengths[photo, k] = len(ids)
                self.weights[photo, k] = share
        self.inputs = np.concatenate([begins, self.targets[..., :-1]], -1)

    def batch(self, photos: Array, names: Sequence[str], read: Array) -> Batch:
        """The batch of the photos with these numbers, from 0 in the order of the captions."""
        lengths = self.lengths[photos]
        T = lengths.max(initial=0)
        mask = np.arange(T) < lengths[..., None]
        return Batch(
            tuple(names),
            read,
            torch.from_numpy(self.inputs[photos, :, :T]),
            torch.from_numpy(lengths),
            torch.from_numpy(self.targets[photos, :, :T][mask]),
            torch.from_numpy(np.broadcast_to(self.weights[photos, :, None], mask.shape)[mask]),
        )


class Batches:
    """Batches of photos with all their captions, in an order that depends on `seeds` and epoch alone."""

    def __init__(
        self,
        captions: dict[str, list[list[str]]],
        vocabulary: Vocabulary,
        inputs: PhasedInputs,
        recipe: Recipe,
        seeds: tuple[int, ...],
        borrowed: Mapping[str, Sequence[Borrowed]] | None = None,
    ) -> None:
        """`borrowed` are captions of other photos, which count besides each photo's own."""
        self.names = list(captions)
        self.photos = inputs
        self.size = recipe.training.photos_per_batch
        self.seeds = seeds
        plain = [[vocabulary.split_style(tokens)[1] for tokens in many] for many in captions.values()]
        weights = [many.tolist() for many in consensus_weights(plain, recipe.training.consensus)]
        written = [list(many) for many in captions.values()]
        for many, their, others in zip(written, weights, map((borrowed or {}).get, captions), strict=True):
            style = many[0][: len(many[0]) - len(vocabulary.split_style(many[0])[1])]
            many += [[*style, *words] for words, _ in others or ()]
            their += [weight for _, weight in others or ()]
        mean = np.mean([weight for their in weights for weight in their])
        self.written = Written(written, vocabulary, recipe, [[weight / mean for weight in their] for their in weights])

    def __len__(self) -> int:
        return math.ceil(len(self.names) / self.size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of the epoch."""
        for photos in self._order(number):
            yield self._batch(photos, number)

    def shares(self, number: int, first: int = 0, *, rank: int = 0, processes: int = 1, parts: int = 1) -> Iterator[Share]:
        """What the process of this rank sees of the epoch's batches, from batch `first` on, each in at most `parts` parts."""
        for photos in self._order(number)[first:]:
            own = np.array_split(photos, processes)[rank]
            yield Share(len(photos), [self._batch(part, number) for part in np.array_split(own, min(parts, max(1, len(own))))])

    def _order(self, number: int) -> list[Array]:
        order = np.random.default_rng([*self.seeds, number]).permutation(len(self.names))
        return [order[start : start + self.size] for start in range(0, len(order), self.size)]

    def _batch(self, photos: Array, epoch: int) -> Batch:
        names = [self.names[photo] for photo in photos]
        inputs = self.photos.at(epoch)
        # Each epoch sees one view of each photo.
        views = np.random.default_rng([*self.seeds, epoch, 1]).integers(inputs.views, size=len(self.names))
        return self.written.batch(photos, names, inputs.read(names, views[photos]))


def ahead(shares: Iterator[Share]) -> Iterator[Share]:
    """The same shares, each read while the one before it is worked on: reading photos takes as long as a GPU's step."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, shares, None)
        while share := coming.result():
            coming = pool.submit(next, shares, None)
            yield share
