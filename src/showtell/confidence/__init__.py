"""How far to trust a caption: labels of the photo, how usual the photo is, and the probability that the caption is good.

All of it is small matrices and a logistic regression over what captioning computes anyway: the mean of the grid features, and
the search's hypotheses. `evaluation.calibrate` fits it, and a bundle stores it. docs/confidence.md explains it to users.
"""

from showtell.confidence.describe import describe
from showtell.confidence.labels import Labels
from showtell.confidence.model import Assessment, Confidence, Parameters

__all__ = ["Assessment", "Confidence", "Labels", "Parameters", "describe"]
