"""Averages of weights: of the steps of a run (Polyak and Juditsky 1992) and of several checkpoints of one lineage (model soups,
Wortsman et al. 2022). An average often captions better than each of its parts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from showtell.errors import CheckpointError
from showtell.train.run import checkpoint
from showtell.train.run.checkpoint import Checkpoint


class MovingAverage:
    """Exponential moving average of parameters.

    The decay is at most `decay` and (1 + n) / (10 + n) after n updates, so that the first weights soon lose their influence.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self._parameters = list(parameters)
        self.values = [parameter.detach().clone() for parameter in parameters]
        self._decay = decay

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Updates the average with the current parameters; `updates` is the number of updates before."""
        kept = min(self._decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(self.values, self._parameters, 1 - kept)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the parameters hold the average."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for parameter, value in zip(self._parameters, self.values, strict=True):
            raw = parameter.clone()
            parameter.copy_(value)
            value.copy_(raw)


def average(checkpoints: Sequence[Checkpoint], output: Path) -> Checkpoint:
    """Writes a checkpoint with the mean weights of `checkpoints` to the folder `output`, which must not exist.

    All else is the first one's, without its dev scores: whoever ships it evaluates it. The mean means something for models that
    went on from one another or from one start, which cannot be seen in them. Raises CheckpointError where their networks or
    words differ.
    """
    first, *others = checkpoints
    model = first.load_model()
    sums = {name: value.double() for name, value in model.networks().state_dict().items()}
    for other in others:
        added = other.load_model()
        if added.vocabulary.words != model.vocabulary.words:
            raise CheckpointError(f"{other.path}: has other words than {first.path}; only models of one lineage have a mean")
        weights = added.networks().state_dict()
        # Variants of the encoder have the same shapes.
        alike = added.encoder.config == model.encoder.config and added.preprocessing == model.preprocessing
        if not alike or {name: v.shape for name, v in weights.items()} != {name: v.shape for name, v in sums.items()}:
            raise CheckpointError(f"{other.path}: has other networks than {first.path}; only models of one lineage have a mean")
        for name, value in weights.items():
            sums[name] += value
    model.networks().load_state_dict({name: value / len(checkpoints) for name, value in sums.items()})
    config = first.config
    kept = {"epoch": config.epoch, "data": config.data, "encoder_weights": config.encoder_weights, "recipe": config.recipe}
    return checkpoint.write(output, model, {**kept, "mean_of": [_named(found) for found in checkpoints]})


def _named(found: Checkpoint) -> str:
    """The run and the epoch, without where they lay."""
    path = found.path.resolve()
    return f"{path.parent.parent.name}/{path.name}" if path.parent.name == "checkpoints" else path.name
