"""Objectives: an objective turns a batch into a loss. Cross-entropy is the first.

The trainer divides the sum of losses by the sum of counts over a step, so that the size of a batch's parts does not matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from torch import Tensor
from torch.nn import functional as F

from showtell.nn.model import CaptionModel
from showtell.train.inputs.batches import Batch


@dataclass(frozen=True)
class Loss:
    """The sum of a batch's losses, and the number of units (words, sampled tokens) in it."""

    total: Tensor  # scalar
    count: int
    shown: Mapping[str, float] = field(default_factory=dict)  # further figures for the log: means over the batch


class Objective(Protocol):
    """A loss of a batch, given the grid features of its photos. `descends`: a rising loss means divergence."""

    @property
    def descends(self) -> bool: ...

    def __call__(self, model: CaptionModel, features: Tensor, batch: Batch) -> Loss:
        """features float32 (B, G, D): G grid cells of D channels."""


@dataclass(frozen=True)
class CrossEntropy:
    """Teacher-forced cross-entropy of each word, with label smoothing (Szegedy et al. 2016) and loss weights."""

    label_smoothing: float
    descends: ClassVar[bool] = True

    def __call__(self, model: CaptionModel, features: Tensor, batch: Batch) -> Loss:
        """See Objective."""
        scores = model.decoder(features, batch.inputs, batch.lengths)
        losses = F.cross_entropy(scores, batch.targets, label_smoothing=self.label_smoothing, reduction="none")
        # Not a dot product: autocast would compute it in bfloat16, where a sum of thousands keeps two digits.
        return Loss((losses * batch.weights).sum(), len(batch.targets))
