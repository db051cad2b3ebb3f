"""Distillation (Hinton, Vinyals and Dean 2015): learning from the distributions of trained models.

The target of each word is a mixture of the caption's word and the mean distribution of the teachers. Teachers read the same
features and words as the student, so each costs one forward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from showtell.errors import RecipeError
from showtell.nn.decoders import Decoder
from showtell.nn.model import CaptionModel
from showtell.train.inputs.batches import Batch
from showtell.train.objectives.cross_entropy import Loss
from showtell.train.run import checkpoint


@dataclass(frozen=True)
class Distillation:
    """Cross-entropy of each word against a target of which the share `weight` is the teachers' mean distribution.

    The rest is the caption's word, with label smoothing.
    """

    teachers: Sequence[Decoder]  # frozen, without dropout
    weight: float
    label_smoothing: float
    descends: ClassVar[bool] = True

    def __call__(self, model: CaptionModel, features: Tensor, batch: Batch) -> Loss:
        """See Objective."""
        with torch.no_grad():
            taught = torch.stack(
                [F.softmax(teacher(features, batch.inputs, batch.lengths).float(), -1) for teacher in self.teachers]
            ).mean(0)
        torch.clear_autocast_cache()  # it holds low-precision weights of the teachers, and weights made without gradients
        scores = model.decoder(features, batch.inputs, batch.lengths).float()
        written = F.cross_entropy(scores, batch.targets, label_smoothing=self.label_smoothing, reduction="none")
        soft = F.cross_entropy(scores, taught, reduction="none")
        losses = (1 - self.weight) * written + self.weight * soft
        return Loss((losses * batch.weights).sum(), len(batch.targets), {"taught": soft.mean().item()})


def load_teachers(paths: Sequence[str], model: CaptionModel) -> list[Decoder]:
    """The decoders of runs or checkpoints, to teach `model`. Raises RecipeError where encoder or vocabulary differ."""
    device = next(model.decoder.parameters()).device
    teachers = []
    for path in paths:
        found = checkpoint.find(Path(path))
        teacher = found.load_model()
        if teacher.vocabulary.words != model.vocabulary.words:
            raise RecipeError(
                f"{found.path}: a teacher must have the vocabulary of the model that it teaches; train it with vocabulary.of"
            )
        if teacher.encoder.fingerprint() != model.encoder.fingerprint():
            raise RecipeError(f"{found.path}: a teacher must have the encoder of the model that it teaches")
        teachers.append(teacher.decoder.to(device).requires_grad_(False).eval())
    return teachers
