"""A layer applied many times, whose weight's gradient is taken once: nothing but its speed differs from the layer itself."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from showtell.nn.deferred import Deferred


def recur(layer: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Any loss of a layer that reads what it wrote, of ever fewer rows."""
    total = torch.zeros(())
    for n in (4, 4, 3, 1):
        rows = torch.tanh(layer(rows[:n]))
        total = total + rows.float().pow(2).sum()
    return total


def square(bias: bool = True) -> tuple[nn.Linear, Tensor]:
    torch.manual_seed(0)
    return nn.Linear(6, 6, bias=bias), torch.randn(4, 6, requires_grad=True)


@pytest.mark.parametrize("bias", [True, False])
def test_losses_and_gradients_are_the_layers(bias: bool) -> None:
    layer, rows = square(bias)
    wanted = [*layer.parameters(), rows]
    one, other = recur(Deferred(layer), rows), recur(layer, rows)
    assert torch.equal(one, other)
    for found, expected in zip(torch.autograd.grad(one, wanted), torch.autograd.grad(other, wanted), strict=True):
        assert torch.allclose(found, expected, atol=1e-6)


def test_the_gradient_comes_once_and_adds_up_over_parts() -> None:
    layer, rows = square()
    calls = []
    layer.weight.register_post_accumulate_grad_hook(lambda _: calls.append(1))  # how processes learn that one is there
    for part in rows.detach().split(2):
        recur(Deferred(layer), part).backward()
    assert len(calls) == 2
    summed = layer.weight.grad
    layer.weight.grad = None
    for part in rows.detach().split(2):
        recur(layer, part).backward()
    assert summed is not None
    assert layer.weight.grad is not None
    assert torch.allclose(summed, layer.weight.grad, atol=1e-6)


def test_a_pass_can_go_back_twice() -> None:
    layer, rows = square()
    loss = recur(Deferred(layer), rows)
    [first] = torch.autograd.grad(loss, [layer.weight], retain_graph=True)
    [second] = torch.autograd.grad(loss, [layer.weight])
    assert torch.equal(first, second)


def test_frozen_layers_pass_gradients_on() -> None:
    layer, rows = square()
    layer.requires_grad_(False)
    [found], [expected] = (torch.autograd.grad(recur(way, rows), [rows]) for way in (Deferred(layer), layer))
    assert torch.allclose(found, expected, atol=1e-6)
    layer.bias.requires_grad_(True)
    [found], [expected] = (torch.autograd.grad(recur(way, rows), [layer.bias]) for way in (Deferred(layer), layer))
    assert torch.allclose(found, expected, atol=1e-6)


def test_autocast_computes_in_its_dtype_and_keeps_the_weights() -> None:
    layer, rows = square()
    wanted = [*layer.parameters(), rows]
    with torch.autocast("cpu", torch.bfloat16):
        deferred = Deferred(layer)
        assert deferred(rows).dtype == torch.bfloat16
        one, other = recur(Deferred(layer), rows), recur(layer, rows)
    assert torch.equal(one, other)
    for found, expected in zip(torch.autograd.grad(one, wanted), torch.autograd.grad(other, wanted), strict=True):
        assert found.dtype == torch.float32
        assert torch.allclose(found, expected, atol=0.05)


def test_without_gradients_nothing_is_kept() -> None:
    layer, rows = square()
    with torch.no_grad():
        deferred = Deferred(layer)
        assert torch.equal(deferred(rows), layer(rows))
    assert not deferred.aside
