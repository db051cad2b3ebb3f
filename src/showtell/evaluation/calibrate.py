"""Fits a bundle's confidence model: labels, word detectors and domain on train photos, calibration on dev photos.

A caption is good if its CIDEr against the photo's references is at least 0.5, and references name at least two thirds of its
nouns. Of people's own captions, held against the others of their photo, 70% reach that CIDEr on COCO and 60% on Flickr8k.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from showtell.arrays import Array, FloatArray
from showtell.confidence import Confidence, Detectors, Labels, Parameters
from showtell.data import Dataset
from showtell.errors import DataError, ImageError
from showtell.files import replacing
from showtell.image import read_photo
from showtell.metrics import score
from showtell.progress import Progress, silent
from showtell.runtime import Captioner
from showtell.text import tokenize
from showtell.text.nouns import groups
from showtell.text.words import MAY_REPEAT, takes_an
from showtell.types import ConfidenceOptions, Sample, Split

GOOD = {"cider": 0.5, "nouns": 2 / 3}
FEW_CAPTIONS = 4  # captions below which a noun that nobody names may well be there
_RARE = 0.4  # weight of such a noun's absence
_LEAST_PHOTOS = 20  # that name a label, or say a word
_COMMON = 0.22  # the share of photos from which on a word, such as "on", has no detector
_COMPONENTS = 128
# Below these probabilities a caption may not say the word; chosen on dev. The base rates are 0.62 and 0.15.
_EVIDENCE = {"person": 0.6, "dog": 0.3}
_MOST_LOST = 0.3
_WORD_WEIGHT, _WORD_NEUTRAL = 0.45, 0.37  # of the detectors in the search; chosen on dev
_FOLDS, _REPEATS, _BINS = 10, 5, 10


@dataclass(frozen=True)
class Judged:
    """The dev photos of a data set. `probability` of each comes from a fit to other photos."""

    captions: dict[str, str]
    references: dict[str, tuple[str, ...]]
    signals: FloatArray  # (N, SIGNALS)
    cider: FloatArray  # (N,), x100
    good: Array  # (N,) bool
    probability: FloatArray  # (N,)

    def measures(self) -> dict[str, float]:
        """The number of photos, the share that is good, AUROC and expected calibration error."""
        return {
            "photos": len(self.good),
            "good": round(float(self.good.mean()), 4),
            "auroc": round(auroc(self.probability[self.good], self.probability[~self.good]), 4),
            "ece": round(calibration_error(self.probability, self.good), 4),
        }


@dataclass(frozen=True)
class Calibrated:
    """A confidence model, and the dev photos of each data set that it was fitted to."""

    confidence: Confidence
    dev: Mapping[str, Judged]


def calibrate(
    captioner: Captioner, datasets: Mapping[str, Dataset], cache: Path | None = None, progress: Progress = silent
) -> Calibrated:
    """Fits labels, detectors and domain on the train photos of all data sets, and the calibration on their dev photos.

    Captions of a data set are in the style of its name, where the model has it. `cache` is a folder where the features of train
    photos are kept. Raises DataError where a split is missing or no label occurs often enough.
    """
    pooled, captions = [], []
    for name, dataset in datasets.items():
        dataset.split("dev")
        photos, features = _pooled(captioner, name, dataset, "train", cache, progress)
        texts = {sample.image: sample.captions for sample in dataset.split("train")}
        pooled.append(features)
        captions += [[tokenize(text) for text in texts[photo]] for photo in photos]
    features = np.concatenate(pooled)
    labels = fit_labels(features, captions, progress)
    detectors = fit_detectors(labels, captioner.bundle.vocabulary.words, features, captions, progress)
    confidence = fit_domain(labels, detectors, features)
    # The captions to be judged are those after the search for evidence, which needs labels and detectors only.
    captioner.confidence = confidence
    judged = {}
    for name, dataset in datasets.items():
        batches = grid_features(captioner, dataset, dataset.split("dev"), f"captioning {name}", progress)
        judged[name] = judge_split(captioner, name, batches)
    return fit_calibration(confidence, judged, {name: name if name in captioner.styles else "" for name in datasets})


def fit_labels(pooled: Array, captions: Sequence[Sequence[Sequence[str]]], progress: Progress = silent) -> Labels:
    """Labels from mean grid features (N, D) and the tokenized captions of each photo, by Adam with weight decay.

    A photo has a label if one of its captions names it.
    """
    known = groups()
    of = {
        word: [place for place, words in enumerate(known.values()) if word in words]
        for words in known.values()
        for word in words
    }
    named = np.zeros((len(captions), len(known)), np.float32)
    articles: Counter[tuple[str, bool]] = Counter()
    for row, texts in enumerate(captions):
        for tokens in texts:
            for before, word in zip(["", *tokens], tokens, strict=False):
                named[row, of.get(word, [])] = 1
                articles[word, before in ("a", "an")] += before in MAY_REPEAT
    kept = np.flatnonzero(named.sum(0) >= _LEAST_PHOTOS)
    if len(kept) == 0:
        raise DataError(
            f"no noun is in the captions of {_LEAST_PHOTOS} train photos; calibrating needs some hundred photos or more"
        )
    names = [list(known)[place] for place in kept]
    target = named[:, kept]
    mean, scale = pooled.mean(0), pooled.std(0) + 1e-6
    weights, bias = _logistic((pooled - mean) / scale, target, _weight(target, captions), progress)
    phrases = tuple(
        f"{'an' if takes_an(name) else 'a'} {name}" if articles[name, True] >= articles[name, False] else name for name in names
    )
    return Labels(tuple(names), tuple(known[name] for name in names), phrases, mean, scale, weights, bias)


def fit_detectors(
    labels: Labels,
    vocabulary: Collection[str],
    pooled: Array,
    captions: Sequence[Sequence[Sequence[str]]],
    progress: Progress = silent,
) -> Detectors:
    """Detectors of the vocabulary's words, neither rare nor on every other photo, fitted as the labels are."""
    said = [{word for tokens in texts for word in tokens} for texts in captions]
    counts = Counter(word for words in said for word in words)
    words = sorted(set(vocabulary) & {word for word, n in counts.items() if _LEAST_PHOTOS <= n < _COMMON * len(captions)})
    place = {word: number for number, word in enumerate(words)}
    target = np.zeros((len(captions), len(words)), np.float32)
    for row, each in enumerate(said):
        target[row, [place[word] for word in each if word in place]] = 1
    weight = _weight(target, captions)
    return Detectors(tuple(words), *_logistic(labels.standardised(pooled), target, weight, progress))


def _weight(target: Array, captions: Sequence[Sequence[Sequence[str]]]) -> Array:
    """How much each entry of target (N, L) counts: where few captions describe a photo, what they do not name may be there."""
    few = np.array([len(texts) < FEW_CAPTIONS for texts in captions])
    found: Array = np.where((target == 0) & few[:, None], np.float32(_RARE), np.float32(1))
    return found


def _logistic(
    inputs: Array,
    target: Array,
    weight: Array,
    progress: Progress,
    *,
    epochs: int = 20,
    rate: float = 1e-3,
    decay: float = 0.03,
) -> tuple[Array, Array]:
    """Weights (D, L) and biases (L,) of one logistic regression for each column of target (N, L)."""
    rng, size = np.random.default_rng(0), min(128, len(inputs))
    steps = epochs * (len(inputs) // size)
    base = np.clip(target.mean(0), 1e-4, 1 - 1e-4)
    parameters = np.concatenate([np.zeros((inputs.shape[1], target.shape[1]), np.float32), np.log(base / (1 - base))[None]])
    first, second = np.zeros_like(parameters), np.zeros_like(parameters)
    for step in range(1, steps + 1):
        rows = rng.integers(0, len(inputs), size)
        batch = np.concatenate([inputs[rows], np.ones((size, 1), np.float32)], 1)
        wrong = (1 / (1 + np.exp(-np.clip(batch @ parameters, -30, 30))) - target[rows]) * weight[rows]
        gradient = batch.T @ wrong / size
        gradient[:-1] += decay * parameters[:-1]
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        pace = rate / 2 * (1 + np.cos(np.pi * step / steps))
        parameters -= pace * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        if step % 50 == 0 or step == steps:
            progress("fitting labels and words", step, steps)
    return parameters[:-1], parameters[-1]


def fit_domain(labels: Labels, detectors: Detectors, pooled: Array) -> Confidence:
    """The principal components of mean grid features (N, D), and how strange the photos are; not calibrated yet."""
    standard = labels.standardised(pooled)
    values, vectors = np.linalg.eigh(standard.T @ standard / len(standard))
    basis = vectors[:, np.argsort(-values)[: min(_COMPONENTS, len(values) // 2)]].astype(np.float32)
    confidence = Confidence(labels, detectors, basis, Parameters(weights=(0.0,) * 5, bias={"": 0.0}, strange=1.0, spread=1.0))
    usual, strange = np.quantile(np.exp(confidence.strangeness(pooled)), (0.5, 0.99))
    evidence = {name: value for name, value in _EVIDENCE.items() if name in labels.names}
    parameters = Parameters(
        weights=(0.0,) * 5,
        bias={"": 0.0},
        strange=float(strange),
        spread=max(1e-3, float(strange - usual) / float(np.log(19))),  # the usual photo gets 0.95
        evidence=evidence,
        most_lost=_MOST_LOST,
        word_weight=_WORD_WEIGHT,
        word_neutral=_WORD_NEUTRAL,
        good=GOOD,
    )
    return replace(confidence, parameters=parameters)


def fit_calibration(confidence: Confidence, judged: Mapping[str, Judged], styles: Mapping[str, str]) -> Calibrated:
    """The logistic regression over the signals of all dev photos, with a bias for each style, and its cross-validation."""
    known = list(dict.fromkeys(styles.values()))
    style = np.concatenate([np.full(len(one.good), known.index(styles[name])) for name, one in judged.items()])
    signals = np.concatenate([one.signals for one in judged.values()])
    inputs = np.concatenate([signals, np.eye(len(known))[style]], 1)
    good = np.concatenate([one.good for one in judged.values()])
    probability = np.zeros(len(good))
    for repeat in range(_REPEATS):
        folds = np.random.default_rng(repeat).permutation(len(good)) % _FOLDS
        for fold in range(_FOLDS):
            held = folds == fold
            weights = _newton(inputs[~held], good[~held], signals.shape[1])
            probability[held] += 1 / (1 + np.exp(-(inputs[held] @ weights))) / _REPEATS
    weights = _newton(inputs, good, signals.shape[1])
    place, found = 0, {}
    for name, one in judged.items():
        found[name] = replace(one, probability=probability[place : place + len(one.good)])
        place += len(one.good)
    parameters = replace(
        confidence.parameters,
        weights=tuple(float(value) for value in weights[: signals.shape[1]]),
        bias=dict(zip(known, map(float, weights[signals.shape[1] :]), strict=True)),
        dev={name: one.measures() for name, one in found.items()},
    )
    return Calibrated(replace(confidence, parameters=parameters), found)


def _newton(inputs: FloatArray, good: Array, signals: int, penalty: float = 5.0) -> FloatArray:
    """Logistic regression by Newton's method: (inputs,) weights of the signals as they are, then of the styles.

    The penalty acts on the weights of signals that were scaled to unit variance.
    """
    mean, scale = inputs[:, :signals].mean(0), inputs[:, :signals].std(0) + 1e-9
    standard = np.concatenate([(inputs[:, :signals] - mean) / scale, inputs[:, signals:]], 1)
    ridge = np.diag([penalty] * signals + [0.1] * (inputs.shape[1] - signals))
    weights = np.zeros(inputs.shape[1])
    for _ in range(50):
        probability = 1 / (1 + np.exp(-standard @ weights))
        curvature = (standard * (probability * (1 - probability))[:, None]).T @ standard + ridge
        change = np.linalg.solve(curvature, standard.T @ (probability - good) + ridge @ weights)
        weights -= change
        if np.abs(change).max() < 1e-8:
            break
    weights[:signals] /= scale
    weights[signals:] -= weights[:signals] @ mean
    return weights


def judge(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> tuple[FloatArray, Array]:
    """CIDEr x100 (N,) of captions, and whether each is good, bool (N,)."""
    scores = score(captions, references, ("cider",))
    cider = np.array([scores.images[photo]["CIDEr"] for photo in captions])
    of = {word: name for name, words in reversed(groups().items()) for word in words}

    def nouns(text: str) -> list[str]:
        return [of[token] for token in tokenize(text) if token in of]

    share = []
    for photo, caption in captions.items():
        said = {noun for text in references[photo] for noun in nouns(text)}
        named = nouns(caption)
        share.append(sum(noun in said for noun in named) / len(named) if named else 0.0)
    return cider, (cider >= 100 * GOOD["cider"]) & (np.array(share) >= GOOD["nouns"] - 1e-9)


def auroc(positive: FloatArray, negative: FloatArray) -> float:
    """The probability that a value of `positive` is above one of `negative`, ties counted half."""
    if len(positive) == 0 or len(negative) == 0:
        return float("nan")
    ordered = np.sort(negative)
    below, upto = np.searchsorted(ordered, positive, "left"), np.searchsorted(ordered, positive, "right")
    return float((below + upto).mean() / 2 / len(ordered))


def calibration_error(probability: FloatArray, good: Array, bins: int = _BINS) -> float:
    """Expected calibration error over bins of equal width (Guo et al. 2017, "On Calibration of Modern Neural Networks")."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    gaps = [abs(float((probability[place == one] - good[place == one]).sum())) for one in range(bins)]
    return sum(gaps) / len(good)


def judge_split(captioner: Captioner, name: str, batches: Iterable[tuple[Sequence[Sample], Array]]) -> Judged:
    """The captions of dev photos of the data set `name`, after the search for evidence, and whether they are good."""
    assert captioner.confidence is not None
    options = captioner.options(style=name if name in captioner.styles else None)
    trust = ConfidenceOptions(fallback=False)
    captions, references, signals = {}, {}, []
    for batch, features in batches:
        assessed = captioner.confidence.assess(features)
        for sample, photo, found in zip(batch, assessed, captioner.describe(features, options, trust), strict=True):
            caption = found.captions[0]
            signals.append(captioner.confidence.signals(caption.tokens, caption.score, photo))
            captions[sample.image], references[sample.image] = caption.text, sample.captions
    cider, good = judge(captions, references)
    return Judged(captions, references, np.array(signals), cider, good, np.zeros(len(good)))


def _pooled(
    captioner: Captioner, name: str, dataset: Dataset, split: Split, cache: Path | None, progress: Progress
) -> tuple[list[str], Array]:
    """The names and mean grid features of a split's photos, from the cache if they are of this encoder."""
    encoder = captioner.bundle.config.files["encoder.onnx"]
    path = cache / f"{name}-{split}.npz" if cache else None
    samples = dataset.split(split)
    if path and path.exists():
        with np.load(path, allow_pickle=False) as kept:
            names = [str(photo) for photo in kept["names"]]
            if str(kept["encoder"]) == encoder and set(names) <= {sample.image for sample in samples}:
                return names, kept["features"]
    names, found = [], []
    for batch, features in grid_features(captioner, dataset, samples, f"encoding {name}", progress):
        names += [sample.image for sample in batch]
        found.append(features.mean(1))
    features = np.concatenate(found)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, names=np.array(names), features=features, encoder=np.array(encoder))
    return names, features


def grid_features(
    captioner: Captioner, dataset: Dataset, samples: Sequence[Sample], what: str, progress: Progress, size: int = 16
) -> Iterator[tuple[list[Sample], Array]]:
    """Batches of samples whose photos can be read, with their grid features (B, cells, D). Raises DataError where none can."""
    preprocessing, read = captioner.bundle.preprocessing, 0
    for begin in range(0, len(samples), size):
        batch, pixels = [], []
        for sample in samples[begin : begin + size]:
            try:
                pixels.append(read_photo(dataset.photos.read(sample.image), preprocessing, sample.image).pixels)
                batch.append(sample)
            except ImageError:
                continue
        read += len(batch)
        if batch:
            yield batch, captioner.features(np.stack(pixels))
        progress(what, min(begin + size, len(samples)), len(samples))
    if not read:
        raise DataError(f"{dataset.name}: none of the {len(samples)} photos can be read")
