"""The learning rate over a run: one cycle (Smith and Topin 2019)."""

import math


def learning_rate(step: int, steps: int, peak: float, warmup: float) -> float:
    """Learning rate of a step: from peak/25 to `peak` over the share `warmup` of all steps, then to 0, both along a cosine."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        share = (1 - math.cos(math.pi * step / rise)) / 2
        return peak / 25 + (peak - peak / 25) * share
    return peak * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))) / 2
