"""A linear layer that one forward pass applies many times, such as at each step of an LSTM.

The gradient of its weight is a sum over the applications. Automatic differentiation computes each term as a matrix of the
weight's size and adds them up, which for few rows at a time is mostly traffic to memory. Here the applications' inputs and
output gradients are put aside on the way back, and the sum is one product of two long matrices (Appleyard et al. 2016,
"Optimizing Performance of Recurrent Neural Networks on GPUs").

Shapes: n rows of one application, I inputs, O outputs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Aside = list[tuple[Tensor, Tensor]]  # input (n, I) and output gradient (n, O) of each application


class Deferred:
    """The layer for one forward pass: the same results and gradients, the latter with one product for the weight.

    Under autocast it computes in autocast's dtype, like the layer itself. Gradients cannot be differentiated again.
    """

    def __init__(self, layer: nn.Linear) -> None:
        device = layer.weight.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else layer.weight.dtype
        self.aside: Aside = []
        self.weight, self.bias = _Weight.apply(layer.weight, layer.bias, dtype, self.aside)  # type: ignore[no-untyped-call]

    def __call__(self, rows: Tensor) -> Tensor:
        """Outputs (n, O) of rows (n, I)."""
        rows = rows.to(self.weight.dtype)
        outputs: Tensor = _Apply.apply(rows, self.weight, self.bias, self.aside)  # type: ignore[no-untyped-call]
        return outputs


class _Weight(torch.autograd.Function):
    """The weight and bias as they are. Autograd comes back here after all applications; only then is their gradient taken."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, aside: Aside) -> tuple[Tensor | None, ...]:
        ctx.aside, ctx.dtype = aside, weight.dtype
        ctx.set_materialize_grads(False)  # the applications give none
        return tuple(None if part is None else part.to(dtype).view_as(part) for part in (weight, bias))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *_: None) -> tuple[Tensor | None, Tensor | None, None, None]:
        rows, gradients = (torch.cat(parts) for parts in zip(*ctx.aside, strict=True))
        ctx.aside.clear()
        weight = (gradients.t() @ rows).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        bias = gradients.sum(0, dtype=ctx.dtype) if ctx.needs_input_grad[1] else None
        return weight, bias, None, None


class _Apply(torch.autograd.Function):
    """The layer's outputs; on the way back, gradients for its rows alone."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, aside: Aside) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.aside = aside
        return F.linear(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None]:
        rows, weight = ctx.saved_tensors
        if any(ctx.needs_input_grad[1:3]):
            ctx.aside.append((rows, gradient))
        return gradient @ weight if ctx.needs_input_grad[0] else None, None, None, None
