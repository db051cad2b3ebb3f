"""From captions and a photo's assessment to its description: confidences, the fallback on a label, the least confidence."""

import math
from collections.abc import Sequence
from dataclasses import replace

from showtell.arrays import Array
from showtell.confidence.model import Assessment, Confidence
from showtell.types import DOUBTFUL, SURE, Caption, ConfidenceOptions, DecodeOptions, Description


def describe(
    model: Confidence,
    captions: Sequence[Caption],
    assessed: Assessment,
    options: DecodeOptions,
    trust: ConfidenceOptions,
) -> Description:
    """The description of one photo, whose captions were searched for by `options`."""
    found = tuple(
        replace(caption, confidence=model.probability(signals, options.style))
        for caption in captions
        for signals in [model.signals(caption.tokens, caption.score, assessed)]
    )
    doubtful = (found[0].confidence or 0) < DOUBTFUL
    asked = options.sample or options.start_with or options.include  # for certain words, or for variety
    usual = assessed.in_domain >= 0.5  # labels mean nothing elsewhere: a blank picture is surely the sky
    likely = assessed.probabilities
    if doubtful and trust.fallback and usual and not asked and (label := _of_label(model, likely, options, found[0])):
        found = (label, *found)[: len(found)]
    confidence = found[0].confidence or 0
    labels = model.labels.best(likely) if trust.labels else None
    return Description(found if confidence >= trust.min_confidence else (), confidence, assessed.in_domain, labels)


def _of_label(model: Confidence, probabilities: Array, options: DecodeOptions, doubted: Caption) -> Caption | None:
    """A caption of the likeliest label alone, where that is sure and the doubted caption names nothing that is likely."""
    place = int(probabilities.argmax())
    probability = float(probabilities[place])
    text = f"a photo of {model.labels.phrases[place]}"
    words = tuple(text.split())
    likely = probabilities[model.labels.named(doubted.tokens)].max(initial=0) >= 0.5
    if probability < SURE or likely or set(words).intersection(options.avoid):
        return None
    pieces = tuple(word if number == 0 else f" {word}" for number, word in enumerate(words))
    return Caption(text, math.log(probability), words, pieces=pieces, confidence=probability, source="labels")
