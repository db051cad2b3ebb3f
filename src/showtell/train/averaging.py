"""A moving average of the weights, which often captions better than the last step's (Polyak and Juditsky 1992)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class MovingAverage:
    """Exponential moving average of parameters: each update keeps the share `decay` of it.

    The first updates keep less, (1 + n) / (10 + n) after n of them, so that the weights of the start are soon forgotten.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self._parameters = list(parameters)
        self.values = [parameter.detach().clone() for parameter in parameters]
        self._decay = decay

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Takes in the parameters as they are now; `updates` is how many came before."""
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
