"""Distillation (Hinton, Vinyals and Dean 2015): learning from what trained models think of each next word.

The target is part the word that was written, part the mean of several teachers' distributions: an ensemble's knowledge in one
model. Teachers read the same features and words, so that each costs a forward pass and nothing else.
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
    """Cross-entropy, per word, against the share `weight` of the teachers' mean distribution and the rest the word itself.

    The words' part has label smoothing; the teachers' is what smooths the other.
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
        torch.clear_autocast_cache()  # it must not keep the low-precision weights of teachers, nor any made without gradients
        scores = model.decoder(features, batch.inputs, batch.lengths).float()
        written = F.cross_entropy(scores, batch.targets, label_smoothing=self.label_smoothing, reduction="none")
        soft = F.cross_entropy(scores, taught, reduction="none")
        losses = (1 - self.weight) * written + self.weight * soft
        return Loss((losses * batch.weights).sum(), len(batch.targets), {"taught": soft.mean().item()})


def load_teachers(paths: Sequence[str], model: CaptionModel) -> list[Decoder]:
    """The decoders of runs or checkpoints, to teach `model`. Raises RecipeError where they read other features or words."""
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
