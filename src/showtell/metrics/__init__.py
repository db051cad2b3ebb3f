"""The field's caption metrics: `score` computes them all at once.

    scores = score({"dog.jpg": "a dog runs"}, {"dog.jpg": ["A dog is running.", "The dog runs on grass."]})
    scores.corpus["CIDEr"], scores.images["dog.jpg"]["BLEU-4"]

BLEU, ROUGE-L and CIDEr need no Java and equal coco-caption's, on the same tokens (`text.tokenize`). METEOR and SPICE need the
extra `coco` and Java. Training uses `Cider` directly.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

import numpy as np

from showtell.errors import DataError, OptionError
from showtell.metrics import coco
from showtell.metrics.bleu import bleu, closest_lengths
from showtell.metrics.cider import Cider
from showtell.metrics.cider import caveat as cider_caveat
from showtell.metrics.diversity import Diversity, diversity
from showtell.metrics.ngrams import NGramTable
from showtell.metrics.result import MetricResult, Tokens
from showtell.metrics.rouge import rouge_l
from showtell.text import TOKENIZERS
from showtell.text.characters import warn_of_sentences

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "Cider",
    "Diversity",
    "MetricResult",
    "NGramTable",
    "Scores",
    "cider_caveat",
    "score",
]

METRICS = ("bleu", "meteor", "rouge", "cider", "spice")  # in the order of the tables
DEFAULT_METRICS = ("bleu", "rouge", "cider")


@dataclass(frozen=True)
class Scores:
    """Scores of one set of candidates, all times 100.

    `corpus` has the metrics asked for, of `BLEU-1` ... `BLEU-4`, `METEOR`, `ROUGE-L`, `CIDEr` and `SPICE`; `images` has the
    same for each image. `results` holds the metrics as fractions, in the order of `images`.
    """

    corpus: Mapping[str, float]
    images: Mapping[str, Mapping[str, float]]
    diversity: Diversity
    tokenizer: str
    versions: Mapping[str, str]
    results: Mapping[str, MetricResult] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """The object that `showtell evaluate --json` writes, intervals apart."""
        return {
            "scores": dict(self.corpus),
            "images": {image: dict(scores) for image, scores in self.images.items()},
            "diversity": asdict(self.diversity),
            "tokenizer": self.tokenizer,
            "count": len(self.images),
            "version": self.versions["showtell"],
            "versions": dict(self.versions),
        }


def score(
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    training_captions: Iterable[str] | None = None,
    tokenizer: str = "ptb",
) -> Scores:
    """Scores captions, one for each image, against reference captions of the same images.

    An empty candidate is a caption without words: it scores 0. `training_captions` serve for the share of captions that are
    not in the training set. `tokenizer` is one of `text.TOKENIZERS`; a ShowtellWarning is given where it takes whole sentences
    for words.

    Raises OptionError for an unknown metric or tokenizer; DataError where there is no image, images differ between candidates
    and references, an image has no reference or a caption is no string; MissingExtraError or MissingToolError where METEOR or
    SPICE cannot run.
    """
    _check(candidates, references, metrics)
    if tokenizer not in TOKENIZERS:
        raise OptionError(f"tokenizer {tokenizer!r} is not known; choose among {', '.join(TOKENIZERS)}")
    tokenize = TOKENIZERS[tokenizer]
    words = [tokenize(caption) for caption in candidates.values()]
    others = [[tokenize(caption) for caption in references[image]] for image in candidates]
    warn_of_sentences((tokens for refs in others for tokens in refs), "score with the tokenizer `characters`")
    table = NGramTable()
    other_ngrams = table.count([_cut(tokens) for tokens in refs] for refs in others)
    ngrams = table.count([_cut(tokens)] for tokens in words)
    compute: dict[str, Callable[[], dict[str, MetricResult]]] = {
        "bleu": lambda: bleu(ngrams, other_ngrams),
        "meteor": lambda: coco.meteor(words, others),
        "rouge": lambda: rouge_l(words, others),
        "cider": lambda: Cider(other_ngrams, table).score(ngrams),
        "spice": lambda: coco.spice(words, others),
    }
    results: dict[str, MetricResult] = {}
    for metric in METRICS:
        if metric in metrics:
            results |= compute[metric]()
    columns = {name: (100 * result.images).tolist() for name, result in results.items()}
    length_ratio = float(ngrams.lengths.sum() / max(1, closest_lengths(ngrams, other_ngrams).sum()))
    training = None if training_captions is None else [tokenize(caption) for caption in training_captions]
    return Scores(
        corpus={name: 100 * result.corpus for name, result in results.items()},
        images={image: {name: column[row] for name, column in columns.items()} for row, image in enumerate(candidates)},
        diversity=diversity(words, others, length_ratio, training),
        tokenizer=tokenizer,
        versions=_versions(metrics),
        results=results,
    )


def _check(candidates: Mapping[str, str], references: Mapping[str, Sequence[str]], metrics: Sequence[str]) -> None:
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics:
        raise OptionError(f"metrics {unknown or 'empty'}: choose among {', '.join(METRICS)}")
    if not candidates:
        raise DataError("there are no candidates to score; give one caption for each image")
    for here, there, side in ((candidates, references, "references"), (references, candidates, "candidates")):
        if absent := [image for image in here if image not in there]:
            raise DataError(
                f"{len(absent)} of {len(here)} images have no {side}, {_some(absent)} among them; score the same images"
            )
    for image, caption in candidates.items():
        captions = references[image]
        if isinstance(captions, str) or len(captions) == 0:
            raise DataError(f"{image}: its references are {captions!r}; give a list of one caption or more")
        for text in (caption, *captions):
            if not isinstance(text, str):
                raise DataError(f"{image}: the caption {text!r} is of type {type(text).__name__}; captions are strings")


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:3]))


def _cut(tokens: Tokens) -> Tokens:
    # coco-caption's BLEU and CIDEr split tokens at no-break spaces (`1\u00a01/2`); its ROUGE-L and METEOR do not
    return " ".join(tokens).split()


def _versions(metrics: Sequence[str]) -> dict[str, str]:
    versions = {
        "showtell": metadata.version("showtell"),
        "numpy": np.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
    }
    if {"meteor", "spice"} & set(metrics):
        versions["pycocoevalcap"] = metadata.version("pycocoevalcap")
    return versions
