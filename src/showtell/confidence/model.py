"""The confidence model of a bundle: `confidence.npz` beside the graphs, and `confidence` in its config.json.

A caption's confidence is a logistic regression over five signals:

    score         mean log-probability per token
    support       mean log of the label probabilities of its nouns
    least         log-probability of the least likely of its words that have a detector
    nouns         how many it has
    strangeness   log of the share of the feature's variance that lies outside the training photos' principal components

Strangeness alone gives `in_domain`: what lies outside the principal subspace of the training features tells other photos
(Ndiour, Ahuja and Tickoo 2020, "Out-Of-Distribution Detection With Subspace Techniques And Probabilistic Modeling Of
Features").
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np

from showtell.arrays import Array
from showtell.confidence.detectors import Detectors
from showtell.confidence.labels import Labels, product
from showtell.errors import BundleError
from showtell.files import replacing

FILE = "confidence.npz"
SIGNALS = ("score", "support", "least", "nouns", "strangeness")
_FLOOR = 1e-4  # of probabilities whose logarithm is taken
_NOTHING = math.log(0.01)  # the support of a caption without nouns, and the least of one without words that have a detector


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The numbers of a confidence model; the matrices are in `confidence.npz`.

    `weights` are those of SIGNALS, `bias` is by caption style ("" for models without). A photo stranger than `strange` in 99 of
    100 training photos has in_domain 0.5; `spread` is the logistic's scale. `evidence` has, for the labels that are checked,
    the probability below which a caption is searched for again without them; the new caption is taken if its score is lower
    by `most_lost` at most. `word_weight` and `word_neutral` make the bonus of the detectors' words. `good` defines a good
    caption, and `dev` has the measures on the dev photos of each data set.
    """

    weights: tuple[float, ...]
    bias: Mapping[str, float]
    strange: float
    spread: float
    evidence: Mapping[str, float] = field(default_factory=dict)
    most_lost: float = 0.3
    word_weight: float = 0.0
    word_neutral: float = 1.0
    good: Mapping[str, float] = field(default_factory=dict)
    dev: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.weights) != len(SIGNALS):
            raise BundleError(f"the confidence part has {len(self.weights)} weights; this version knows {len(SIGNALS)} signals")


@dataclass(frozen=True)
class Assessment:
    """What one photo's features say: probabilities of labels (N,), log-probabilities of the detectors' words (W,), domain."""

    probabilities: Array
    words: Array
    strangeness: float
    in_domain: float


@dataclass(frozen=True)
class Confidence:
    """What a model knows besides its captions: labels, word detectors, domain and calibration.

    `basis` float32 (D, C) are principal components of the standardised mean grid features.
    """

    labels: Labels
    detectors: Detectors
    basis: Array
    parameters: Parameters

    def assess(self, features: Array) -> list[Assessment]:
        """Of each photo, from grid features float32 (B, cells, D). What is found does not depend on the other photos."""
        pooled = features.mean(1, dtype=np.float64)
        strangeness = self.strangeness(pooled)
        beyond = (np.exp(strangeness) - self.parameters.strange) / self.parameters.spread
        in_domain = 1 / (1 + np.exp(np.clip(beyond, -30, 30)))
        words = self.detectors.log_probabilities(self.labels.standardised(pooled))
        each = zip(self.labels.probabilities(pooled), words, strangeness.tolist(), in_domain.tolist(), strict=True)
        return [Assessment(*one) for one in each]

    def bonus(self, assessed: Sequence[Assessment]) -> Array:
        """What the search adds to the log-probabilities of the detectors' words, (B, W): likely words gain, others lose."""
        parameters = self.parameters
        words = np.array([one.words for one in assessed], np.float32).reshape(len(assessed), len(self.detectors.words))
        found: Array = np.float32(parameters.word_weight) * (words - np.float32(math.log(parameters.word_neutral)))
        return found

    def strangeness(self, pooled: Array) -> Array:
        """Log of the residual share (B,) of mean grid features (B, D): at most 0."""
        standard = self.labels.standardised(pooled)
        whole = np.maximum((standard**2).sum(1), 1e-9)
        found: Array = np.log(np.clip(1 - (product(standard, self.basis) ** 2).sum(1) / whole, _FLOOR, 1))
        return found

    def signals(self, tokens: Sequence[str], score: float, assessed: Assessment) -> list[float]:
        """The SIGNALS of a caption of the photo."""
        named = self.labels.named(tokens)
        support = _NOTHING
        if named:
            support = float(np.log(np.clip(assessed.probabilities[named], _FLOOR, 1)).mean())
        known = [self.detectors.place[token] for token in tokens if token in self.detectors.place]
        least = float(assessed.words[known].min()) if known else _NOTHING
        return [score, support, least, len(named), assessed.strangeness]

    def probability(self, signals: Sequence[float], style: str = "") -> float:
        """The probability that a caption is good."""
        bias = self.parameters.bias
        value = bias.get(style, next(iter(bias.values()))) + math.fsum(
            weight * signal for weight, signal in zip(self.parameters.weights, signals, strict=True)
        )
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, value))))

    def unsupported(self, tokens: Sequence[str], probabilities: Array, said: Collection[str] = ()) -> tuple[str, ...]:
        """The words without evidence in a photo whose label probabilities are (N,), where a caption has one of them.

        "man" needs evidence of a person, or as much of a man. Words in `said` were asked for and need none. Empty where the
        caption has none of the words.
        """
        labels, barred, named = self.labels, set[str](), False
        for name, least in self.parameters.evidence.items():
            place = labels.names.index(name)
            if probabilities[place] < least:
                seen = {word for other in np.flatnonzero(probabilities >= least) for word in labels.words[other]}
                named |= place in labels.named([token for token in tokens if token not in seen.union(said)])
                barred |= labels.words[place] - seen
        return tuple(sorted(barred.difference(said))) if named else ()

    def save(self, folder: Path) -> None:
        """Writes `confidence.npz`; matrices in half precision or int8, whose error is far below that of the probabilities."""
        labels, detectors = self.labels, self.detectors
        text = {
            "names": labels.names,
            "words": [sorted(words) for words in labels.words],
            "phrases": labels.phrases,
            "detectors": detectors.words,
        }
        step = np.maximum(np.abs(detectors.weights).max(0), 1e-9) / 127
        with replacing(folder / FILE) as path, open(path, "wb") as file:
            np.savez(
                file,
                labels=np.frombuffer(json.dumps(text).encode(), np.uint8),
                mean=labels.mean.astype(np.float32),
                scale=labels.scale.astype(np.float32),
                weights=labels.weights.astype(np.float16),
                bias=labels.bias.astype(np.float32),
                basis=self.basis.astype(np.float16),
                detector_weights=np.round(detectors.weights / step).astype(np.int8),
                detector_step=step.astype(np.float32),
                detector_bias=detectors.bias.astype(np.float32),
            )

    @classmethod
    def load(cls, folder: Path, parameters: Parameters) -> Self:
        """From a bundle's folder and config. Raises BundleError."""
        path = folder / FILE
        try:
            with np.load(path, allow_pickle=False) as arrays:
                text = json.loads(arrays["labels"].tobytes())
                numbers = {name: arrays[name].astype(np.float64) for name in ("mean", "scale", "bias")}
                numbers |= {name: arrays[name].astype(np.float32) for name in ("weights", "basis")}
                detectors = Detectors(
                    tuple(text["detectors"]),
                    arrays["detector_weights"] * arrays["detector_step"],
                    arrays["detector_bias"],
                )
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
            raise BundleError(f"{path}: not readable as a confidence model ({error}); calibrate or install it again") from None
        basis = numbers.pop("basis")
        labels = Labels(tuple(text["names"]), tuple(map(frozenset, text["words"])), tuple(text["phrases"]), **numbers)
        return cls(labels, detectors, basis, parameters)

    def to_json(self) -> dict[str, Any]:
        """The object `confidence` of config.json."""
        return asdict(self.parameters)
