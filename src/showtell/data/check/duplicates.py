"""Near duplicates among photos, without comparing all pairs.

A photo's fingerprint has two parts. The first is a difference hash of 128 bits (Krawetz 2013, "Kind of Like That"): whether
each cell of a small grey picture is brighter than its left and its upper neighbour. The second is a small colour picture,
compared where hashes are similar. Hashes at most d bits apart agree in one of d + 1 bands of bits (the pigeonhole principle),
so only photos with an equal band are compared (multi-index hashing, Norouzi et al. 2012).
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from showtell.arrays import Array

SIDE = 36  # pixels of the picture that a fingerprint is made from
MAX_BITS = 16  # of 128 that may differ
MAX_COLOUR = 16.0  # mean difference of the small pictures, of 255

_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_ONES = np.array([number.bit_count() for number in range(256)], np.uint8)


class Fingerprint(NamedTuple):
    """A photo's difference hash, uint8 (16,), and small colour picture, uint8 (12, 12, 3)."""

    hash: Array
    colour: Array


def fingerprint(pixels: Array) -> Fingerprint:
    """The fingerprint of a photo, from uint8 (SIDE, SIDE, 3)."""
    grey = (pixels @ _GREY).reshape(9, SIDE // 9, 9, SIDE // 9).mean((1, 3))
    bits = np.concatenate([(grey[:8, 1:] > grey[:8, :-1]).ravel(), (grey[1:, :8] > grey[:-1, :8]).ravel()])
    colour = pixels.reshape(12, SIDE // 12, 12, SIDE // 12, 3).mean((1, 3)).round().astype(np.uint8)
    return Fingerprint(np.packbits(bits), colour)


def near(fingerprints: list[Fingerprint]) -> list[list[int]]:
    """Groups of near duplicates as indices into the list; a photo is in one group at most."""
    if not fingerprints:
        return []
    hashes, colours = map(np.stack, zip(*fingerprints, strict=True))
    return groups(_pairs(hashes, colours.reshape(len(colours), -1).astype(np.int16)), len(fingerprints))


def groups(pairs: Iterable[tuple[int, int]], count: int) -> list[list[int]]:
    """The connected components of `count` items with these pairs as edges, by union-find (Tarjan 1975), less single items."""
    parent = list(range(count))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for first, second in pairs:
        parent[root(second)] = root(first)
    components: dict[int, list[int]] = {}
    for place in range(count):
        components.setdefault(root(place), []).append(place)
    return [group for group in components.values() if len(group) > 1]


def _pairs(hashes: Array, colours: Array) -> Iterator[tuple[int, int]]:
    bits = np.unpackbits(hashes, axis=1)
    bands = MAX_BITS + 1
    for band in range(bands):
        # Every 17th bit, so that a band covers the whole picture and photos of the sky differ.
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
