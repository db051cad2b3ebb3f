"""Photos that are equal or nearly so, found without comparing each with each.

A photo's sign is a difference hash (Krawetz 2013, "Kind of Like That") of 128 bits, whether each cell of a small grey picture
is brighter than its left and than its upper neighbour, and a small picture in colour, compared where hashes are alike. Hashes
at most d bits apart agree wholly in one of d + 1 bands of bits (the pigeonhole principle), so only photos that share a band are
compared (multi-index hashing, Norouzi et al. 2012).
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from showtell.image import Array

SIDE = 36  # pixels of the picture that a sign is made from
MAX_BITS = 16  # of 128 that may differ
MAX_COLOUR = 16.0  # mean difference of the small pictures, of 255

_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_ONES = np.array([number.bit_count() for number in range(256)], np.uint8)


class Sign(NamedTuple):
    """What photos are compared by: hash uint8 (16,), and colour uint8 (12, 12, 3)."""

    hash: Array
    colour: Array


def sign(pixels: Array) -> Sign:
    """The sign of a photo, from uint8 (SIDE, SIDE, 3)."""
    grey = (pixels @ _GREY).reshape(9, SIDE // 9, 9, SIDE // 9).mean((1, 3))
    bits = np.concatenate([(grey[:8, 1:] > grey[:8, :-1]).ravel(), (grey[1:, :8] > grey[:-1, :8]).ravel()])
    colour = pixels.reshape(12, SIDE // 12, 12, SIDE // 12, 3).mean((1, 3)).round().astype(np.uint8)
    return Sign(np.packbits(bits), colour)


def near(signs: list[Sign]) -> list[list[int]]:
    """Groups of photos that look alike, by their places in the list; a photo stands in one group at most."""
    if not signs:
        return []
    hashes = np.stack([sign.hash for sign in signs])
    colours = np.stack([sign.colour for sign in signs]).reshape(len(signs), -1).astype(np.int16)
    return groups(_pairs(hashes, colours), len(signs))


def groups(pairs: Iterable[tuple[int, int]], count: int) -> list[list[int]]:
    """What hangs together through pairs, by union-find (Tarjan 1975): groups of two or more of `count` places."""
    parent = list(range(count))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for first, second in pairs:
        parent[root(second)] = root(first)
    found: dict[int, list[int]] = {}
    for place in range(count):
        found.setdefault(root(place), []).append(place)
    return [group for group in found.values() if len(group) > 1]


def _pairs(hashes: Array, colours: Array) -> Iterator[tuple[int, int]]:
    bits = np.unpackbits(hashes, axis=1)
    bands = MAX_BITS + 1
    for band in range(bands):
        # Every 17th bit, so that a band sees the whole picture and skies do not all share one.
        taken = bits[:, band::bands].astype(np.int64)
        keys = taken @ (1 << np.arange(taken.shape[1]))
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
        for run in np.split(order, starts[1:]):
            for place in range(len(run) - 1):
                first, others = run[place], run[place + 1 :]
                others = others[_ONES[hashes[others] ^ hashes[first]].sum(1) <= MAX_BITS]
                if len(others):
                    others = others[np.abs(colours[others] - colours[first]).mean(1) <= MAX_COLOUR]
                    yield from ((int(first), int(other)) for other in others)
