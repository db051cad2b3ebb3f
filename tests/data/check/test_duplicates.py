"""Near duplicates: the index against a comparison of all pairs."""

import random

import numpy as np

from showtell.data.check import duplicates


def test_the_index_finds_what_comparing_all_pairs_finds():
    """Random hashes and some that are up to 20 bits away from another one, in one colour."""
    random.seed(3)
    generator = np.random.default_rng(3)
    hashes = list(generator.integers(0, 256, (300, 16), dtype=np.uint8))
    for place in range(0, 300, 3):
        bits = np.unpackbits(hashes[place])
        bits[random.sample(range(128), place % 21)] ^= 1
        hashes.append(np.packbits(bits))
    colour = np.zeros((12, 12, 3), np.uint8)
    groups = duplicates.near([duplicates.Fingerprint(h, colour) for h in hashes])
    bits = np.unpackbits(np.stack(hashes), axis=1).astype(int)
    apart = np.abs(bits[:, None] - bits[None]).sum(2)
    close = [(i, j) for i in range(400) for j in range(i + 1, 400) if apart[i, j] <= duplicates.MAX_BITS]
    assert sorted(groups) == sorted(duplicates.groups(close, 400))
    assert 50 < len(groups) < 100


def test_plain_photos_of_other_colours_are_not_near():
    plain = [np.full((36, 36, 3), value, np.uint8) for value in (0, 100, 110, 200)]
    assert duplicates.near([duplicates.fingerprint(pixels) for pixels in plain]) == [[1, 2]]
    assert duplicates.near([]) == []
