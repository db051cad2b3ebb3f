"""How far to trust a caption: labels and words of the photo, how usual it is, and the probability that the caption is good.

All of it is small matrices and a logistic regression over what captioning computes anyway: the mean of the grid features, and
the search's hypotheses. `evaluation.calibrate` fits it, and a bundle stores it. docs/confidence.md explains it to users.
"""

from showtell.confidence.describe import describe
from showtell.confidence.detectors import Detectors
from showtell.confidence.labels import Labels
from showtell.confidence.model import Assessment, Confidence, Parameters

__all__ = ["Assessment", "Confidence", "Detectors", "Labels", "Parameters", "describe"]
