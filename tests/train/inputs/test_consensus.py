"""Captions weighted by how much a photo's other captions agree with them."""

import numpy as np
import pytest

from showtell.metrics import Cider, NGramTable
from showtell.train.inputs.batches import Batches, weighted
from showtell.train.inputs.consensus import consensus_weights
from showtell.train.inputs.features import FeatureCache
from showtell.train.inputs.inputs import CachedInputs
from showtell.vocabulary import Vocabulary

CAPTIONS = [
    [text.split() for text in many]
    for many in (
        ["a dog runs over grass", "a dog runs over the grass", "somebody left his shoes outside"],
        ["two men play football", "men play football in the rain"],
        ["a red bus"],
        ["the sea", "blue water everywhere around"],
    )
]


def test_weights_are_cider_against_the_other_captions() -> None:
    found = consensus_weights(CAPTIONS, 1.0)
    assert [len(many) for many in found] == [3, 2, 1, 2]
    assert [many.mean() for many in found] == pytest.approx([1, 1, 1, 1])
    assert found[0][2] == 0
    assert found[0][0] > 1
    assert list(found[2]) == [1]  # nothing to agree with
    assert list(found[3]) == [1, 1]  # nothing agrees

    scores = []
    for k, caption in enumerate(CAPTIONS[0]):
        table = NGramTable()
        others = table.count([[*CAPTIONS[0][:k], *CAPTIONS[0][k + 1 :]]])
        scores.append(Cider(others, table, table.count(CAPTIONS)).rewards([0], [caption])[0])
    assert np.allclose(found[0], np.array(scores) / np.mean(scores))


def test_power_sharpens_and_none_is_all_alike() -> None:
    plain, squared, none = (consensus_weights(CAPTIONS, power) for power in (1.0, 2.0, 0.0))
    assert np.allclose(squared[0], plain[0] ** 2 / np.mean(plain[0] ** 2))
    assert all((many == 1).all() for many in none)


def test_each_word_of_a_batch_has_its_captions_weight() -> None:
    captions = {str(n): many for n, many in enumerate(CAPTIONS)}
    captions["0"] = [["zzz"], *captions["0"]]  # nothing is left of it by the rule below
    inputs = CachedInputs([FeatureCache(tuple(captions), np.zeros((4, 1, 2), np.float16))])
    vocabulary = Vocabulary.from_captions([words for many in CAPTIONS for words in many], 1)
    encoded = weighted(captions, vocabulary, rule="original", max_words=33, consensus=1)
    [whole] = Batches(list(captions), encoded, inputs, 16, (1,)).epoch(1)
    [batch] = whole.parts
    weights = consensus_weights(list(captions.values()), 1.0)
    dogs = batch.names.index("0")
    before = int(batch.lengths[:dogs].sum())
    lengths = batch.lengths[dogs].tolist()
    assert lengths == [6, 7, 6]
    expected = np.repeat(weights[0][1:], lengths)
    assert np.allclose(batch.weights[before : before + len(expected)], expected)
    assert len(batch.weights) == len(batch.targets)
