"""Standardisation of the teacher's channels; tests/test_distributed.py runs it on two ranks."""

import pytest
import torch

from beitv2_mm.layers import Standardize
from support.tiny import parameters_of


def test_batch_statistics_then_their_average():
    torch.manual_seed(0)
    layer = Standardize(5)
    batches = [torch.randn(50, 5) * 3 + 7, torch.randn(50, 5) + 1]
    for batch in batches:
        out = layer(batch)
        torch.testing.assert_close(out.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
        torch.testing.assert_close(out.std(0, correction=0), torch.ones(5), atol=1e-4, rtol=0)
    mean = torch.stack([batch.mean(0) for batch in batches]).mean(0)
    var = torch.stack([batch.var(0) for batch in batches]).mean(0)
    expected = (batches[0] - mean) / (var + layer.eps).sqrt()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    torch.testing.assert_close(layer.eval()(batches[0]), expected)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert not list(layer.parameters())


@pytest.mark.parametrize('value', [torch.nan, torch.inf])
def test_a_batch_that_is_not_finite_is_left_out_of_the_average(value):
    layer, batch = Standardize(3), torch.randn(8, 3)
    bad = batch.clone()
    bad[2, 1] = value
    layer(bad)
    layer(batch)
    before = parameters_of(layer)
    layer(bad)
    for name, kept in layer.state_dict().items():
        assert torch.equal(kept, before[name]), name
    torch.testing.assert_close(layer.running_mean, batch.mean(0))
