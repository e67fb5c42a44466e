"""Attention: against the plain formula, and its position bias."""

import pytest
import torch

from beitv2_mm.layers import Attention
from support.tiny import randomize

GRID = (2, 3)


def test_attention_is_the_formula_with_and_without_bias():
    torch.manual_seed(0)
    attention = randomize(Attention(16, 4)).eval()
    x, bias = torch.randn(2, 7, 16), torch.randn(4, 7, 7)
    for given in (None, bias):
        weights = attention.probabilities(x, GRID, given)
        _, _, v = attention.project(x)
        expected = attention.proj((weights @ v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(attention(x, GRID, given), expected)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 7))
    assert not torch.allclose(attention(x, GRID, None), attention(x, GRID, bias))


def test_keys_have_no_bias():
    attention = randomize(Attention(16, 4))
    q, k, v = attention.project(torch.zeros(1, 7, 16))
    assert (k == 0).all()
    assert (q != 0).any() and (v != 0).any()


@pytest.mark.parametrize('queries', [None, torch.tensor([[0, 4], [2, 1]])])
def test_bias_with_and_without_gradient_give_the_same(queries):
    """On a CPU the fused kernel serves the second alone."""
    torch.manual_seed(0)
    attention, grads = randomize(Attention(16, 4)).train(), []
    x, bias = torch.randn(2, 7, 16), torch.randn(4, 7, 7)
    for given in (bias, bias.clone().requires_grad_()):
        attention.zero_grad()
        out = attention(x, GRID, given, queries)
        out.square().sum().backward()
        grads.append([out.detach(), *(p.grad for p in attention.parameters())])
    torch.testing.assert_close(*grads)
    assert given.grad.abs().sum() > 0


def test_own_table_has_precedence_over_the_shared_bias():
    attention = randomize(Attention(16, 4, GRID)).eval()
    x = torch.randn(2, 7, 16)
    torch.testing.assert_close(attention(x, GRID), attention(x, GRID, torch.randn(4, 7, 7)))


@torch.no_grad()
@pytest.mark.cpu_only(reason='on other devices no bias is kept')
def test_own_bias_is_kept_while_it_is_small(monkeypatch):
    attention = randomize(Attention(16, 4, GRID)).eval()
    kept = attention.position_bias((4, 5))
    assert attention.position_bias((4, 5)) is kept
    attention.relative_position_bias_table.mul_(2)
    torch.testing.assert_close(attention.position_bias((4, 5)), 2 * kept)
    monkeypatch.setattr('beitv2_mm.layers.attention.MAX_CACHED_BIAS', 4 * 21**2 - 1)
    made = attention.position_bias((4, 5))
    assert attention.position_bias((4, 5)) is not made
    torch.testing.assert_close(made, 2 * kept)


def test_width_and_heads_must_fit():
    with pytest.raises(ValueError, match='16 cannot be split into 3 heads'):
        Attention(16, 3)
