"""The confidence model of a bundle: `confidence.npz` beside the graphs, and `confidence` in its config.json.

A caption's confidence is a logistic regression over five signals:

    score         mean log-probability per token
    support       mean log of the label probabilities of its nouns
    least         of the noun with the least evidence, the logit of its label less the logit of the label's base rate
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
from showtell.confidence.labels import Labels, product
from showtell.errors import BundleError
from showtell.files import replacing

FILE = "confidence.npz"
SIGNALS = ("score", "support", "least", "nouns", "strangeness")
_FLOOR = 1e-4  # of probabilities whose logarithm is taken
_NO_NOUN = (math.log(0.01), -2.0)  # support and least evidence of a caption without nouns


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The numbers of a confidence model; the matrices are in `confidence.npz`.

    `weights` are those of SIGNALS, `bias` is by caption style ("" for models without). A photo stranger than `strange` in 99 of
    100 training photos has in_domain 0.5; `spread` is the logistic's scale. `evidence` has, for the labels that are checked,
    the probability below which a caption is searched for again without them; the new caption is taken if its score is lower
    by `most_lost` at most. `good` defines a good caption, and `dev` has the measures on the dev photos of each data set.
    """

    weights: tuple[float, ...]
    bias: Mapping[str, float]
    strange: float
    spread: float
    evidence: Mapping[str, float] = field(default_factory=dict)
    most_lost: float = 0.3
    good: Mapping[str, float] = field(default_factory=dict)
    dev: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.weights) != len(SIGNALS):
            raise BundleError(f"the confidence part has {len(self.weights)} weights; this version knows {len(SIGNALS)} signals")


@dataclass(frozen=True)
class Assessment:
    """Figures of B photos, from their features: label probabilities (B, N), strangeness (B,) and in_domain (B,)."""

    probabilities: Array
    strangeness: Array
    in_domain: Array


@dataclass(frozen=True)
class Confidence:
    """Labels, domain and calibration of one model. `basis` float32 (D, C) are principal components of its labels' features."""

    labels: Labels
    basis: Array
    parameters: Parameters

    def assess(self, features: Array) -> Assessment:
        """Of grid features float32 (B, cells, D). A photo's figures do not depend on its batch."""
        pooled = features.mean(1, dtype=np.float64)
        strangeness = self.strangeness(pooled)
        beyond = (np.exp(strangeness) - self.parameters.strange) / self.parameters.spread
        in_domain = 1 / (1 + np.exp(np.clip(beyond, -30, 30)))
        return Assessment(self.labels.probabilities(pooled), strangeness, in_domain)

    def strangeness(self, pooled: Array) -> Array:
        """Log of the residual share (B,) of mean grid features (B, D): at most 0."""
        standard = (pooled - self.labels.mean) / self.labels.scale
        whole = np.maximum((standard**2).sum(1), 1e-9)
        found: Array = np.log(np.clip(1 - (product(standard, self.basis) ** 2).sum(1) / whole, _FLOOR, 1))
        return found

    def signals(self, tokens: Sequence[str], score: float, probabilities: Array, strangeness: float) -> list[float]:
        """The SIGNALS of a caption of one photo, whose label probabilities are (N,)."""
        named = self.labels.named(tokens)
        support, least = _NO_NOUN
        if named:
            found = np.clip(probabilities[named], _FLOOR, 1 - _FLOOR)
            support = float(np.log(found).mean())
            base = np.clip(self.labels.base[named], _FLOOR, 1 - _FLOOR)
            least = float((np.log(found / (1 - found)) - np.log(base / (1 - base))).min())
        return [score, support, least, len(named), strangeness]

    def probability(self, signals: Sequence[float], style: str = "") -> float:
        """The probability that a caption is good."""
        bias = self.parameters.bias
        value = bias.get(style, next(iter(bias.values()))) + math.fsum(
            weight * signal for weight, signal in zip(self.parameters.weights, signals, strict=True)
        )
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, value))))

    def unsupported(self, tokens: Sequence[str], probabilities: Array, said: Collection[str] = ()) -> tuple[str, ...]:
        """The words without evidence in a photo whose label probabilities are (N,), where a caption has one of them.

        Words in `said` were asked for and need no evidence. Empty where the caption has none.
        """
        labels, least = self.labels, self.parameters.evidence
        lacking = {place for place, name in enumerate(labels.names) if probabilities[place] < least.get(name, 0)}
        if not lacking.intersection(labels.named([token for token in tokens if token not in said])):
            return ()
        return tuple(sorted({word for place in lacking for word in labels.words[place]} - set(said)))

    def save(self, folder: Path) -> None:
        """Writes `confidence.npz`; matrices in half precision, as their error is far below that of the probabilities."""
        labels = self.labels
        text = {"names": labels.names, "words": [sorted(words) for words in labels.words], "phrases": labels.phrases}
        with replacing(folder / FILE) as path, open(path, "wb") as file:
            np.savez(
                file,
                labels=np.frombuffer(json.dumps(text).encode(), np.uint8),
                mean=labels.mean.astype(np.float32),
                scale=labels.scale.astype(np.float32),
                weights=labels.weights.astype(np.float16),
                bias=labels.bias.astype(np.float32),
                base=labels.base.astype(np.float32),
                basis=self.basis.astype(np.float16),
            )

    @classmethod
    def load(cls, folder: Path, parameters: Parameters) -> Self:
        """From a bundle's folder and config. Raises BundleError."""
        path = folder / FILE
        try:
            with np.load(path, allow_pickle=False) as arrays:
                text = json.loads(arrays["labels"].tobytes())
                numbers = {name: arrays[name].astype(np.float64) for name in ("mean", "scale", "bias", "base")}
                numbers |= {name: arrays[name].astype(np.float32) for name in ("weights", "basis")}
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
            raise BundleError(f"{path}: not readable as a confidence model ({error}); calibrate or install it again") from None
        basis = numbers.pop("basis")
        labels = Labels(tuple(text["names"]), tuple(map(frozenset, text["words"])), tuple(text["phrases"]), **numbers)
        return cls(labels, basis, parameters)

    def to_json(self) -> dict[str, Any]:
        """The object `confidence` of config.json."""
        return asdict(self.parameters)
