"""Recomputation of a function: where it stops, its gradients and its random numbers."""

import pytest
import torch
from torch import nn

from beitv2_mm.layers import Block
from beitv2_mm.layers.recompute import recompute
from support.tiny import randomize

GRID = (2, 3)


def test_region_ends_before_its_last_product():
    """The second run computes GELU and stops; the gradients are those of the plain function."""
    torch.manual_seed(0)
    layer, calls, found = nn.Linear(8, 4), [], []

    def run(x):
        calls.append('start')
        x = torch.nn.functional.gelu(x)
        x = layer(x)
        calls.append('end')
        return x

    for call in (run, lambda x: recompute(run, x)):
        calls.clear()
        layer.zero_grad()
        x = torch.linspace(-2, 2, 24).view(3, 8).requires_grad_()
        call(x).square().sum().backward()
        found.append([x.grad, *(p.grad.clone() for p in layer.parameters())])
    torch.testing.assert_close(*found, rtol=0, atol=0)
    assert calls == ['start', 'end', 'start']


def test_random_numbers_are_drawn_again():
    torch.manual_seed(0)
    x = torch.ones(1000, requires_grad=True)
    out = recompute(lambda x: nn.functional.dropout(x.exp(), 0.5), x)
    torch.rand(1)  # something else draws before the backward pass
    out.sum().backward()
    assert torch.equal(x.grad == 0, out == 0)


@pytest.mark.parametrize('with_cp', [True, 'selective'])
@pytest.mark.parametrize('amp', [False, True])
def test_block_can_be_used_twice_and_differentiated_twice(with_cp, amp, device):
    """Two calls before one backward pass, and two backward passes through one graph."""
    x, found = torch.randn(2, 7, 16), []
    for mode in (False, with_cp):
        torch.manual_seed(0)
        block = randomize(Block(16, 2, layer_scale=0.1, with_cp=mode)).train()
        leaf = x.clone().requires_grad_()
        with torch.autocast(device, torch.bfloat16, enabled=amp):
            loss = block(block(leaf, GRID), GRID).float().square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        found.append([leaf.grad, *(p.grad for p in block.parameters())])
    torch.testing.assert_close(*found, rtol=0, atol=0)
