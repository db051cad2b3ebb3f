"""The stages of a run, cross-entropy and then SCST, and the learning rate over one: a cycle (Smith and Topin 2019)."""

import math
from dataclasses import dataclass

from showtell.train.recipe import Recipe


@dataclass(frozen=True)
class Stage:
    """Epochs under one objective, with a learning rate cycle of their own."""

    name: str
    first: int  # epoch, counted from 1
    epochs: int
    scale: float  # of all peak rates


def stage_of(recipe: Recipe, epoch: int) -> Stage:
    """The stage that an epoch, counted from 1, belongs to."""
    start, epochs = recipe.scst.from_epoch, recipe.training.epochs
    if not start:
        return Stage("cross-entropy", 1, epochs, 1.0)
    if epoch < start:
        return Stage("cross-entropy", 1, start - 1, 1.0)
    return Stage("scst", start, epochs - start + 1, recipe.scst.learning_rate / recipe.training.learning_rate)


def learning_rate(step: int, steps: int, peak: float, warmup: float) -> float:
    """One cycle: from peak/25 up to `peak` over the share `warmup` of all steps, then down to nothing, both along a cosine."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        share = (1 - math.cos(math.pi * step / rise)) / 2
        return peak / 25 + (peak - peak / 25) * share
    return peak * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))) / 2
