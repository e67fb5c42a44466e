"""The quantizer on one process; tests/test_distributed.py runs it on two."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from beitv2_mm.layers import VectorQuantizer, spherical_kmeans
from beitv2_mm.layers.nearest_codes import MAX_SCORES, nearest_codes, search_codes
from support.tiny import parameters_of


def quantizer(num_codes=16, dim=8, **settings):
    torch.manual_seed(0)
    return VectorQuantizer(num_codes, dim, **{'kmeans_init': False, **settings})


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.numel = max([self.numel, *sizes])
        return out


def test_peer_bug_half_precision_changes_codes(device):
    model = quantizer(1024, 8).eval()
    latents = torch.randn(4, 256, 8)
    expected = model(latents)
    z = F.normalize(latents, dim=-1)
    half = (z.bfloat16() @ model.embedding.weight.bfloat16().T).argmax(-1)
    assert (half != expected.codes).float().mean() > 0.01  # what the peers do
    for mode in (False, True):
        with torch.autocast(device, torch.bfloat16):
            assert torch.equal(model.encode(latents), expected.codes)
            out = copy.deepcopy(model).train(mode)(latents)
        assert torch.equal(out.codes, expected.codes)
        assert out.quantized.dtype == out.commitment_loss.dtype == torch.float32
        torch.testing.assert_close(out.commitment_loss, expected.commitment_loss)


def test_kmeans_and_codebook_are_fp32_under_autocast(device):
    latents = torch.randn(4, 64, 8)
    models = quantizer(kmeans_init=True), quantizer(kmeans_init=True)
    models[0](latents)
    with torch.autocast(device, torch.bfloat16):
        models[1](latents)
    assert torch.equal(models[0].embedding.weight, models[1].embedding.weight)


@pytest.mark.parametrize('mode', [True, False])
@pytest.mark.cpu_only(reason='other devices hold more scores at once')
def test_peer_bug_one_hot_matrix(monkeypatch, mode):
    """Nothing as large as tokens x codes is ever held, k-means included."""
    tokens, codes = 1000, 2048
    assert tokens * codes > 1.4 * MAX_SCORES
    model = quantizer(codes, 4, kmeans_init=True, kmeans_iterations=1).train(mode)
    # the operator is closed to the recorder, what it runs is not
    monkeypatch.setattr('beitv2_mm.layers.vector_quantizer.nearest_codes', search_codes)
    with LargestTensor() as largest, torch.no_grad():
        model(torch.randn(1, tokens, 4))
    assert max(tokens * 5, codes * 5) < largest.numel <= MAX_SCORES


@pytest.mark.parametrize('codes', [16, 128, 300, 1024])
def test_search_in_chunks_is_the_search_at_once(monkeypatch, codes):
    z, codebook = (F.normalize(torch.randn(n, 8), dim=1) for n in (101, codes))
    codebook[codes // 2 :] = codebook[: codes // 2]  # of equal codes, the first
    expected = (z @ codebook.T).argmax(1)
    monkeypatch.setattr('beitv2_mm.layers.nearest_codes.MAX_SCORES', codes * 7)
    assert torch.equal(nearest_codes(z, codebook), expected)


def test_peer_bug_eval_moves_the_statistics():
    model = quantizer(revive_after=1, kmeans_init=True)
    latents = torch.randn(2, 32, 8)
    model.encode(latents)  # not even the k-means of a training forward
    assert not model.initialized
    model(latents)
    before = parameters_of(model)
    model.encode(torch.randn(2, 32, 8))
    model.eval()
    for _ in range(3):
        model(torch.randn(2, 32, 8))
        model.encode(torch.randn(2, 32, 8))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    model.train()(torch.randn(2, 32, 8))
    assert not torch.equal(model.embedding.weight, before['embedding.weight'])


def test_eval_before_any_training_does_not_start_kmeans():
    model = quantizer(kmeans_init=True).eval()
    before = parameters_of(model)
    model(torch.randn(2, 32, 8))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def dead_codebook(**settings):
    """All codes but one point away from the latents."""
    model = quantizer(8, 4, decay=0.5, **settings)
    with torch.no_grad():
        model.embedding.weight.copy_(-torch.eye(4).repeat(2, 1))
        model.embedding.weight[0] = F.normalize(torch.ones(4), dim=0)
    return model, torch.rand(4, 32, 4) + 0.1


def test_peer_bug_dead_codes_are_never_revived():
    model, latents = dead_codebook(revive_after=2)
    for _ in range(4):
        codes = model(latents).codes
    assert len(codes.unique()) > 4
    assert (model.embedding.weight > 0).all()  # every code is, or comes from, a latent
    torch.testing.assert_close(model.embedding.weight.norm(dim=1), torch.ones(8))


def test_revival_waits_for_its_step_and_is_off_by_default():
    model, latents = dead_codebook(revive_after=3)
    dead = model.embedding.weight[1:].clone()
    for _ in range(2):
        model(latents)
        torch.testing.assert_close(model.embedding.weight[1:], dead)
    assert model.idle_steps.tolist() == [0] + [2] * 7
    model(latents)
    assert (model.embedding.weight > 0).all()
    assert model.idle_steps.tolist() == [0] * 8
    model, latents = dead_codebook()
    for _ in range(20):
        model(latents)
    torch.testing.assert_close(model.embedding.weight[1:], dead)


def spoiled(latents, where, value):
    """A copy with NaN or Inf in one latent, in one image or everywhere."""
    part = dict(latent=(1, 3), image=(1,), batch=())[where]
    latents = latents.clone()
    latents[part] = value
    return latents


@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize('where', ['latent', 'image', 'batch'])
def test_non_finite_latents_change_nothing(where, value):
    """Neither codes, counts and idle steps, nor the codes that are due to be revived."""
    model, latents = dead_codebook(revive_after=3)
    model(latents), model(latents)  # the dead codes are due in the next step
    before = parameters_of(model)
    for _ in range(4):
        model(spoiled(latents, where, value))
    for name, kept in model.state_dict().items():
        assert torch.equal(kept, before[name]), name
    model(latents)
    assert (model.embedding.weight > 0).all()
    assert model.idle_steps.tolist() == [0] * 8


@pytest.mark.parametrize('where', ['latent', 'image', 'batch'])
def test_kmeans_leaves_non_finite_latents_out(where):
    torch.manual_seed(1)
    model, latents = quantizer(8, 4, kmeans_init=True, decay=1.0), torch.randn(4, 32, 4)
    bad = spoiled(latents, where, torch.nan)
    model(bad)
    assert bool(model.initialized) is (where != 'batch')
    model(latents)
    assert model.initialized and model.embedding.weight.isfinite().all()
    if where != 'batch':
        good = F.normalize(bad.flatten(0, 1)[bad.flatten(0, 1).isfinite().all(1)], dim=1)
        order = torch.randperm(len(good), generator=torch.Generator().manual_seed(0))
        expected, _ = spherical_kmeans(good, good[order[:8]])
        torch.testing.assert_close(model.embedding.weight.data, expected)


def test_overflow_in_float16_under_a_grad_scaler(device):
    """The latents are Inf, the scaler leaves the step out, and so does the codebook."""
    model = nn.Sequential(nn.Linear(8, 8), quantizer(16, 8, revive_after=1)).train()
    scaler = torch.amp.GradScaler(device, init_scale=2.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(4, 32, 8)

    def step(x):
        with torch.autocast(device, torch.float16):
            out = model(x)
        scaler.scale(out.commitment_loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return out

    step(x)
    before = parameters_of(model)
    assert not step(x * 1e6).commitment_loss.isfinite()
    assert scaler.get_scale() == 1.0
    for name, kept in model.state_dict().items():
        assert torch.equal(kept, before[name]), name
    assert step(x).commitment_loss.isfinite()
    assert not torch.equal(model[1].embedding.weight, before['1.embedding.weight'])


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_a_module_of_another_type_gives_float32_codes(dtype):
    model = quantizer(16, 8)
    latents = torch.randn(2, 32, 8)
    expected = model.encode(latents)
    out = model.to(dtype)(latents.to(dtype))
    assert out.quantized.dtype == torch.float32
    if dtype == torch.float64:
        assert torch.equal(out.codes, expected)


def test_round_trip_of_codes():
    model = quantizer(64, 8)
    codes = torch.arange(64).view(2, 32)
    vectors = model.decode(codes)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2, 32))
    assert torch.equal(model.encode(vectors * 3), codes)
    out = model.eval()(vectors * 3)
    torch.testing.assert_close(out.quantized, vectors)
    assert out.commitment_loss < 1e-12


def test_codebook_larger_than_the_first_batch():
    model = quantizer(100, 4, kmeans_init=True)
    with pytest.warns(
        UserWarning, match=re.escape('has 12 latents for a codebook of 100: 88 codes')
    ):
        out = model(torch.randn(2, 6, 4))
    assert out.commitment_loss.isfinite()
    torch.testing.assert_close(model.embedding.weight.norm(dim=1), torch.ones(100))
    for _ in range(3):
        model(torch.randn(2, 6, 4))
    assert len(model.embedding.weight.unique(dim=0)) == 100


def test_kmeans_runs_once_and_finds_clusters():
    centres = torch.eye(4)
    torch.manual_seed(1)
    samples = F.normalize(centres.repeat(50, 1) + 0.05 * torch.randn(200, 4), dim=1)
    found, counts = spherical_kmeans(samples, samples[:4])
    assert (found @ centres.T).max(1).values.min() > 0.99
    assert counts.tolist() == [50] * 4
    model = quantizer(4, 4, kmeans_init=True, decay=1.0)
    model(samples[None])
    first = model.embedding.weight.clone()
    model(-samples[None])
    torch.testing.assert_close(model.embedding.weight, first)  # decay 1: only k-means could move it


def test_a_loaded_codebook_is_trained_on_not_restarted():
    torch.manual_seed(1)
    source = quantizer(kmeans_init=True)
    source(torch.randn(2, 32, 8))
    whole = quantizer(kmeans_init=True)
    whole.load_state_dict(source.state_dict())
    official = quantizer(kmeans_init=True)
    official.load_state_dict({'embedding.weight': source.embedding.weight})  # strict
    batch = torch.randn(2, 32, 8)
    expected = source(batch)
    for model in (whole, official):
        assert torch.equal(model(batch).codes, expected.codes)
        assert torch.equal(model.embedding.weight, source.embedding.weight)
    assert torch.equal(whole.cluster_size, source.cluster_size)
    fresh = quantizer(kmeans_init=True)
    fresh.load_state_dict(quantizer(kmeans_init=True).state_dict())
    assert not fresh.initialized
    fresh(batch)
    assert fresh.initialized


def test_settings_are_checked():
    with pytest.raises(ValueError, match='at least 2 codes, but num_codes=1'):
        VectorQuantizer(1)
    with pytest.raises(ValueError, match='from 1 on, not 0'):
        VectorQuantizer(revive_after=0)
