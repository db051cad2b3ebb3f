"""BLEU, ROUGE-L and CIDEr against pycocoevalcap on the same tokens: candidates of four kinds, over made-up captions and, where
they are at hand, real ones."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider as CocoCider
from pycocoevalcap.rouge.rouge import Rouge

from showtell.metrics import Cider, NGramTable
from showtell.metrics.bleu import bleu
from showtell.metrics.rouge import rouge_l
from showtell.text import tokenize

TOLERANCE = 1e-6


def made_up_references(images=120):
    """Five captions an image around a theme of its own, so that n-grams are shared within images and across them."""
    rng = random.Random(1)
    who = [
        "a man",
        "two men",
        "a dog",
        "a brown dog",
        "three kids",
        "a little girl",
        "people",
        "a woman in red",
        "the players",
        "a black cat",
    ]
    does = [
        "runs",
        "is running",
        "jumps over a log",
        "plays with a ball",
        "stands near water",
        "rides a bike",
        "sits",
        "looks at the camera",
    ]
    where = [
        "on the grass",
        "in the snow",
        "on a beach",
        "near a fence",
        "in front of a crowd",
        "at night",
        "outside",
        "in the water",
    ]
    references = []
    for _ in range(images):
        themes = [rng.sample(options, 2) for options in (who, does, where)]
        references.append([" ".join(rng.choice(theme) for theme in themes).split() for _ in range(5)])
    return references


def flickr8k_references(images=1000):
    path = next(Path(os.environ["SHOWTELL_FLICKR8K"]).rglob("Flickr8k.token.txt"))
    by_image = {}
    for line in path.read_text(encoding="utf-8").splitlines()[: 5 * images]:
        by_image.setdefault(line.split("#")[0], []).append(tokenize(line.split("\t")[1]))
    return list(by_image.values())


def other_annotators(references):
    return [refs[0] for refs in references], [refs[1:] for refs in references]


def like_a_model(references):
    """Stand-in for a trained captioner: a reference with words lost, doubled and swapped, cut short now and then."""
    rng = random.Random(2)
    candidates = []
    for refs in references:
        words = [word for word in rng.choice(refs) for _ in range(rng.choice((0, 1, 1, 1, 1, 2)))]
        if rng.random() < 0.3:
            rng.shuffle(words)
        candidates.append(words[: rng.randint(1, 12)])
    return candidates, references


def at_random(references):
    rng = random.Random(3)
    return [rng.choice(rng.choice(references)) for _ in references], references


def degenerate(references):
    """Empty and one-word candidates, single references, empty references."""
    candidates = [refs[0][: index % 3] for index, refs in enumerate(references)]
    kept = [refs[:1] if index % 2 else [*refs[1:], []] for index, refs in enumerate(references)]
    return candidates, kept


real = [
    pytest.mark.real,
    pytest.mark.skipif("SHOWTELL_FLICKR8K" not in os.environ, reason="$SHOWTELL_FLICKR8K, the folder of Flickr8k, is not set"),
]


@pytest.mark.parametrize("choose", [other_annotators, like_a_model, at_random, degenerate])
@pytest.mark.parametrize("source", [made_up_references, pytest.param(flickr8k_references, marks=real)])
def test_equals_pycocoevalcap(source, choose):
    assert_equal_to_pycocoevalcap(*choose(source()))


@pytest.mark.real
def test_equals_pycocoevalcap_on_a_trained_models_captions(dev_run):
    candidates = [tokenize(caption) for caption in dev_run.candidates.values()]
    references = [[tokenize(caption) for caption in dev_run.references[image]] for image in dev_run.candidates]
    assert_equal_to_pycocoevalcap(candidates, references)


def assert_equal_to_pycocoevalcap(candidates, references):
    given = {index: [" ".join(tokens) for tokens in refs] for index, refs in enumerate(references)}
    answers = {index: [" ".join(tokens)] for index, tokens in enumerate(candidates)}
    blues, blues_by_image = Bleu().compute_score(given, answers, verbose=0)
    expected = {f"BLEU-{n + 1}": (blues[n], blues_by_image[n]) for n in range(4)}
    expected["ROUGE-L"] = Rouge().compute_score(given, answers)
    expected["CIDEr"] = CocoCider().compute_score(given, answers)

    table = NGramTable()
    other_ngrams, ngrams = table.count(references), table.count([tokens] for tokens in candidates)
    results = bleu(ngrams, other_ngrams) | rouge_l(candidates, references) | Cider(other_ngrams, table).score(ngrams)

    assert results.keys() == expected.keys()
    for name, (corpus, images) in expected.items():
        assert results[name].corpus == pytest.approx(corpus, abs=TOLERANCE), name
        np.testing.assert_allclose(results[name].images, images, atol=TOLERANCE, rtol=0, err_msg=name)
