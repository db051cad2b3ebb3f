"""The learning rate over a run: one cycle along cosines (Smith and Topin 2019)."""

import math


def learning_rate(step: int, steps: int, peak: float, warmup: float) -> float:
    """One cycle: from peak/25 up to `peak` over the share `warmup` of all steps, then down to nothing, both along a cosine."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        share = (1 - math.cos(math.pi * step / rise)) / 2
        return peak / 25 + (peak - peak / 25) * share
    return peak * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))) / 2
