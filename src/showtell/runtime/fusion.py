"""The decoder's predictions together with what word detectors say of the photo (`showtell.confidence.detectors`)."""

from dataclasses import dataclass, replace
from typing import Any

from showtell.arrays import Array
from showtell.decoding import Hypothesis, Step, StepModel


@dataclass(frozen=True, slots=True)
class Fused:
    """A decoder whose log-probabilities get each photo's `bonus`, float32 (B, vocabulary). They are not normalised again.

    It holds the features (B, cells, channels), and a search takes the numbers of photos in their place: a search may begin with
    some of the photos.
    """

    model: StepModel
    features: Array
    bonus: Array

    def start(self, features: Array) -> tuple[Any, Array]:
        """See StepModel; `features` are the photos' numbers (B,)."""
        if len(features) == len(self.features):  # all of them, in their order: no copy
            return self.model.start(self.features), self.bonus
        return self.model.start(self.features[features]), self.bonus[features]

    def step(self, tokens: Array, state: tuple[Any, Array]) -> Step:
        """See StepModel."""
        own, bonus = state
        log_probs, after, attention = self.model.step(tokens, own)
        return Step(log_probs + bonus[:, None], (after, bonus), attention)

    def reorder(self, state: tuple[Any, Array], photos: Array, hypotheses: Array) -> tuple[Any, Array]:
        """See StepModel."""
        own, bonus = state
        return self.model.reorder(own, photos, hypotheses), bonus[photos]


def without_bonus(hypothesis: Hypothesis, bonus: Array) -> Hypothesis:
    """The hypothesis with the decoder's own log-probability; `bonus` (vocabulary,) is that of its photo."""
    searched = list(hypothesis.tokens[hypothesis.given :])
    return replace(hypothesis, log_prob=hypothesis.log_prob - float(bonus[searched].sum(dtype="float64")))
