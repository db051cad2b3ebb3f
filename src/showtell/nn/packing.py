"""Packed captions: captions of different lengths without padding, as decoders read them in training.

Captions are sorted by falling length, so that the n captions which have a word at a step are the first n. Words are listed step
by step: the first words of all captions, then the second words of those that have one, and so on.

Shapes: B photos, K captions of each, T steps of the longest, N words of all captions together.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """Captions without padding. A caption's number is `photo * K + caption`."""

    order: Tensor  # int64 (B * K,): numbers of the captions, longest first
    sizes: list[int]  # of each step: how many captions have a word; they are the first in `order`
    tokens: Tensor  # int64 (N,), step by step
    unsort: Tensor  # int64 (N,): reorders a step-by-step list into caption-by-caption order, that of `tokens[mask]`

    @classmethod
    def of(cls, tokens: Tensor, lengths: Tensor) -> "Packed":
        """From int64 tokens (B, K, T), of which each caption's first `lengths` (B, K) count."""
        sorted_lengths, order = lengths.flatten().sort(descending=True, stable=True)
        steps = torch.arange(int(sorted_lengths[0]), device=tokens.device)
        going = sorted_lengths > steps.unsqueeze(1)  # (steps, B * K)
        places = (order * tokens.shape[2] + steps.unsqueeze(1))[going]  # of the words in `tokens`
        return cls(order, going.sum(1).tolist(), tokens.flatten()[places], places.argsort())
