"""Borrowed captions: texts without photos that resemble a train photo's own captions, as further captions of that photo.

A photo has five captions, and text files have hundreds of thousands. Each train photo borrows the few texts that are nearest to
its own captions by CIDEr-D. That is the nearest-neighbour captioner of Devlin et al. 2015 ("Exploring Nearest Neighbor
Approaches for Image Captioning") with neighbours found by caption instead of by photo. The loss weight falls with the distance.
"""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from showtell.arrays import Array
from showtell.data import Dataset
from showtell.errors import DataError
from showtell.files import replacing
from showtell.metrics import Cider, NGramTable
from showtell.metrics.result import Tokens
from showtell.progress import Progress, silent
from showtell.text import RULES
from showtell.train.run.display import Reporter

CANDIDATES = 60  # texts a photo compared by CIDEr-D: the nearest by TF-IDF
SHORTEST, LONGEST = 5, 20  # words of a text
COMMON = 0.05  # n-grams of more than this share of the photos are left out of TF-IDF
_AT_ONCE = 100  # photos compared with all texts at once


class Borrowed(NamedTuple):
    """A borrowed caption and its loss weight, from 0 to 1."""

    words: tuple[str, ...]
    weight: float


def borrowed_captions(
    files: Mapping[str, Path], dataset: Dataset, rule: str, count: int, file: Path, report: Reporter
) -> dict[str, list[Borrowed]]:
    """At most `count` borrowed captions of each train photo; kept in `file`, and read from it where that exists.

    `files` has the text file that the photos of each style borrow from; photos without a style have the style "".
    """
    if not files:
        return {}
    if file.exists():
        lines = map(json.loads, file.read_text(encoding="utf-8").splitlines())
        return {line["image"]: [Borrowed(tuple(words), weight) for words, weight in line["borrowed"]] for line in lines}
    borrowed: dict[str, list[Borrowed]] = {}
    tokenize = RULES[rule].tokenize
    for style, path in files.items():
        report.message(f"borrowing captions from {path}")
        texts = read_texts(path, tokenize)
        samples = [sample for sample in dataset.split("train") if sample.style == style]
        captions = {sample.image: [tokenize(text) for text in sample.captions] for sample in samples}
        borrowed |= borrow(captions, texts, count, report.progress)
        report.message(f"{sum(len(borrowed[name]) for name in captions)} captions borrowed for {len(captions)} photos")
    with replacing(file) as temporary, open(temporary, "w", encoding="utf-8") as lines_out:
        for name, many in borrowed.items():
            lines_out.write(json.dumps({"image": name, "borrowed": many}, ensure_ascii=True) + "\n")
    return borrowed


def borrow(
    captions: Mapping[str, Sequence[Tokens]],
    texts: Sequence[Tokens],
    count: int,
    progress: Progress = silent,
) -> dict[str, list[Borrowed]]:
    """For each photo the `count` texts that are nearest to its own tokenised captions by CIDEr-D, best first.

    A text's weight is the square of its CIDEr-D as a fraction, at most 1. CIDEr-D against a single caption is high for any text
    that shares its rarest words. For photos with one caption it is therefore halved, and so is the weight.
    """
    frequencies = Counter(ngram for many in captions.values() for ngram in {n for words in many for n in _ngrams(words)})
    most = max(2.0, COMMON * len(captions))
    known = {ngram: number for number, ngram in enumerate(n for n, photos in frequencies.items() if 2 <= photos <= most)}
    rarity = np.log(len(captions) / np.array([frequencies[ngram] for ngram in known], np.float32))
    photos = _vectors(captions.values(), known, rarity)
    columns = _vectors(([words] for words in texts), known, rarity).T.tocsr()
    table = NGramTable()
    cider = Cider(table.count(captions.values()), table)
    found: dict[str, list[Borrowed]] = {}
    names = list(captions)
    for start in range(0, len(names), _AT_ONCE):
        alike = (photos[start : start + _AT_ONCE] @ columns).toarray()
        nearest = np.argpartition(-alike, min(CANDIDATES, len(texts)) - 1, axis=1)[:, :CANDIDATES]
        for row, candidates in enumerate(nearest, start):
            name = names[row]
            scores = cider.rewards([row] * len(candidates), [texts[place] for place in candidates])
            found[name] = _best(captions[name], [texts[place] for place in candidates], scores, count)
        progress("borrowing captions", len(found), len(names))
    return found


def _best(own: Sequence[Tokens], texts: Sequence[Tokens], scores: Array, count: int) -> list[Borrowed]:
    several = len(own) > 1
    taken: dict[tuple[str, ...], float] = {}
    for place in np.argsort(-scores, kind="stable"):
        words = tuple(texts[place])
        if words in taken or words in map(tuple, own):
            continue
        if len(taken) == count or scores[place] <= 0.1:
            break
        score = float(scores[place])
        taken[words] = min(1.0, score) ** 2 if several else 0.5 * min(1.0, score / 2) ** 2
    return [Borrowed(words, weight) for words, weight in taken.items()]


def read_texts(path: Path, tokenize: Callable[[str], list[str]]) -> list[list[str]]:
    """The tokenised captions of a file of JSON lines such as {"captions": ["A dog.", "A wet dog."]}, gzipped or not.

    Captions of fewer than 5 or more than 20 words are left out. Raises DataError where the file has another form.
    """
    texts = []
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                for caption in _captions(json.loads(line), path, number):
                    words = tokenize(caption)
                    if SHORTEST <= len(words) <= LONGEST:
                        texts.append(words)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read as captions, a JSON object a line ({error})") from None
    if not texts:
        raise DataError(f"{path}: has no captions of {SHORTEST} to {LONGEST} words to borrow")
    return texts


def _captions(line: Any, path: Path, number: int) -> list[str]:
    found = line.get("captions", line.get("caption")) if isinstance(line, dict) else None
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not all(isinstance(caption, str) for caption in found):
        raise DataError(f'{path}, line {number}: no captions; a line is an object such as {{"captions": ["A dog runs."]}}')
    return found


def _ngrams(words: Tokens) -> Iterator[str]:
    yield from words
    yield from (f"{first} {second}" for first, second in pairwise(words))


def _vectors(captions: Any, known: Mapping[str, int], rarity: Array) -> Any:
    """TF-IDF vectors of unit length, one row for each list of captions."""
    columns: list[int] = []
    counts: list[int] = []
    ends = [0]
    for many in captions:
        found = Counter(known[ngram] for words in many for ngram in _ngrams(words) if ngram in known)
        columns += found.keys()
        counts += found.values()
        ends.append(len(columns))
    places = np.array(columns, np.int32)
    values = np.array(counts, np.float32) * rarity[places]
    matrix = sparse.csr_matrix((values, places, np.array(ends, np.int32)), shape=(len(ends) - 1, len(known)))
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
    matrix.data /= np.repeat(np.maximum(lengths, 1e-6), np.diff(matrix.indptr))
    return matrix
