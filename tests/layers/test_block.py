"""The block: drop path, precision, gradient checkpointing."""

import pytest
import torch
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
from timm.layers import DropPath
from torch._dynamo.backends.common import aot_autograd
from torch.utils.flop_counter import FlopCounterMode

from beitv2_mm.benchmark.memory import MIB, allocated_on_cpu
from beitv2_mm.layers import Block, VisionTransformer
from beitv2_mm.layers.recompute import COMPILES_SELECTIVE
from support.tiny import randomize

GRID = (2, 3)
PRODUCTS = {
    f'aten.{name}.default'
    for name in ('mm', 'addmm', 'bmm', '_scaled_dot_product_flash_attention_for_cpu')
}


@pytest.mark.parametrize('grid', [None, GRID])
@pytest.mark.parametrize(
    'queries', [slice(0, 1), slice(1, None), torch.tensor([[0, 4, 6], [2, 1, 5], [0, 3, 1]])]
)
def test_queries_do_not_need_the_output_of_other_tokens(grid, queries):
    torch.manual_seed(0)
    block = randomize(Block(16, 4, layer_scale=0.1, grid=grid)).train()
    inputs = torch.randn(3, 7, 16, requires_grad=True), torch.randn(4, 7, 7, requires_grad=True)
    whole, part = block(inputs[0], GRID, inputs[1]), block(inputs[0], GRID, inputs[1], queries)
    rows = torch.arange(3)[:, None] if isinstance(queries, torch.Tensor) else slice(None)
    torch.testing.assert_close(part, whole[rows, queries])
    leaves = [inputs[0], *([] if grid else inputs[1:]), *block.parameters()]
    grads = [
        torch.autograd.grad(out.square().sum(), leaves) for out in (whole[rows, queries], part)
    ]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize('layer_scale', [None, 1.0])
@pytest.mark.parametrize('queries', [None, torch.tensor([[3, 0, 5]]).expand(4000, -1)])
def test_peer_bug_drop_path_once_a_branch(layer_scale, queries):
    """An image keeps a branch with 1 - rate, scaled by 1 / (1 - rate); twice would square both."""
    rate, images = 0.4, 4000
    block = Block(8, 2, layer_scale=layer_scale, drop_path=rate).train()
    draws = []
    for module in block.modules():
        if isinstance(module, DropPath):
            module.register_forward_hook(lambda *_: draws.append(1))
    with torch.no_grad():
        block.attn.proj.weight.zero_()
        block.attn.proj.bias.fill_(1.0)
        block.mlp.fc2.weight.zero_()
        block.mlp.fc2.bias.fill_(100.0)
    torch.manual_seed(0)
    out = block(torch.zeros(images, 7, 8), GRID, queries=queries)
    assert len(draws) == 2
    keep = 1 - rate
    per_image = out[:, 0, 0].detach()
    torch.testing.assert_close(out, per_image[:, None, None].expand_as(out))
    for value in per_image.unique():
        assert any(
            value.item() == pytest.approx(a / keep + 100 * b / keep) for a in (0, 1) for b in (0, 1)
        )
    sigma = (rate * keep / images) ** 0.5
    mlp = (per_image > 50).float()
    attention = (per_image - mlp * 100 / keep > 1).float()
    assert abs(mlp.mean().item() - keep) < 4 * sigma
    assert abs(attention.mean().item() - keep) < 4 * sigma
    assert len(per_image.unique()) == 4  # the branches are dropped apart


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_branch_is_added_in_float32(dtype, device):
    """Output and gradients are those of a branch that was copied to float32 first."""
    block, found = randomize(Block(16, 2, layer_scale=0.1)).train(), []
    x, branch = torch.randn(3, 7, 16), torch.randn(3, 7, 16).to(dtype)
    for add in (block._add, lambda x, branch, gamma: torch.addcmul(x, gamma, branch.float())):
        block.zero_grad()
        leaves = x.clone().requires_grad_(), branch.clone().requires_grad_()
        with torch.autocast(device, dtype):
            out = add(*leaves, block.gamma_1)
        out.square().sum().backward()
        assert out.dtype == torch.float32
        found.append([out.detach(), *(leaf.grad for leaf in leaves), block.gamma_1.grad])
    torch.testing.assert_close(*found)
    assert found[0][2].dtype == dtype


def test_drop_path_rate_grows_linearly_and_eval_drops_nothing():
    model = VisionTransformer(32, 8, 3, 16, 5, 2, drop_path_rate=0.4)
    assert model.drop_path_rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    found = [getattr(block.drop_path, 'drop_prob', 0) for block in model.blocks]
    assert found == pytest.approx(model.drop_path_rates)
    assert VisionTransformer(32, 8, 3, 16, 1, 2, drop_path_rate=0.4).drop_path_rates == [0.0]
    block = randomize(Block(16, 2, drop_path=0.9)).eval()
    x = torch.randn(4, 7, 16)
    torch.testing.assert_close(block(x, GRID), block(x, GRID))


@pytest.mark.parametrize('layer_scale', [None, 0, 0.0])
def test_peer_bug_no_layer_scale(layer_scale):
    block = Block(16, 2, layer_scale=layer_scale)
    block.init_weights(1)
    assert not any('gamma' in name for name, _ in block.named_parameters())
    assert block(torch.randn(2, 7, 16), GRID).isfinite().all()


QUERIES = [None, slice(1, None), torch.tensor([[0, 2], [1, 6], [3, 3]])]


@pytest.mark.parametrize('with_cp', [True, 'selective'])
@pytest.mark.parametrize('queries', QUERIES, ids=['all', 'slice', 'indices'])
@pytest.mark.parametrize('settings', [dict(layer_scale=0.1, grid=GRID), dict()])
def test_recomputation_equals_keeping(with_cp, queries, settings):
    """Output and every gradient, random numbers included."""
    check_recomputation(with_cp, queries, settings)


@pytest.mark.parametrize(
    ('queries', 'settings'),
    [(QUERIES[0], dict()), (QUERIES[1], dict(layer_scale=0.1, grid=GRID)), (QUERIES[2], dict())],
    ids=['all', 'slice', 'indices'],
)
def test_compiled_recomputation_equals_keeping(queries, settings):
    check_recomputation('selective', queries, settings, backend='aot_eager')


def check_recomputation(with_cp, queries, settings, backend=None):
    x, found = torch.randn(3, 7, 16), []
    drops = dict(drop_path=0.5, attn_drop=0.1, proj_drop=0.1)
    for mode in (False, with_cp):
        torch.manual_seed(1)
        block = randomize(Block(16, 2, **drops, **settings, with_cp=mode)).train()
        if backend:
            torch._dynamo.reset()
            block.compile(backend=backend, fullgraph=True)
        image = x.clone().requires_grad_()
        bias = torch.randn(2, 7, 7).requires_grad_()
        out = block(image, GRID, bias, queries)
        out.square().sum().backward()
        found.append([out.detach(), image.grad, *(p.grad for p in block.parameters())])
        found[-1] += [] if settings else [bias.grad]
    for kept, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(recomputed, kept)


def kept_for_backward(with_cp, dtype, backend=None):
    """MiB that PyTorch's allocator holds after the forward pass of some blocks."""
    net = VisionTransformer(32, 16, embed_dims=64, num_layers=4, num_heads=4, with_cp=with_cp)
    x, bias = torch.randn(8, 50, 64), torch.randn(4, 50, 50, requires_grad=True)
    results = []
    for block in net.blocks if backend else ():
        block.compile(backend=backend)

    def forward():
        with torch.autocast('cpu', dtype or torch.bfloat16, enabled=dtype is not None):
            results.extend(list(net.iterate_blocks(x, (7, 7), bias))[-1:])

    held = allocated_on_cpu(forward)[-1] / MIB
    assert results[0].requires_grad
    return held


@pytest.mark.parametrize(('dtype', 'bound'), [(None, 0.83), (torch.bfloat16, 0.86)])
def test_recomputation_saves_memory(dtype, bound):
    """GELU's output is 4 of some 22 activations of the width of a token that a block keeps."""
    plain, selective, whole = (kept_for_backward(cp, dtype) for cp in (False, 'selective', True))
    assert whole < selective < bound * plain


@pytest.mark.skipif(not COMPILES_SELECTIVE, reason='compiled from PyTorch 2.14 on')
@pytest.mark.parametrize(('dtype', 'bound'), [(None, 0.75), (torch.bfloat16, 0.9)])
def test_compiled_selective_recomputation_saves_memory(dtype, bound):
    kept = []
    for with_cp, backend in ((False, 'aot_eager'), ('selective', 'aot_eager'), ('selective', None)):
        torch._dynamo.reset()
        kept.append(kept_for_backward(with_cp, dtype, backend))
    plain, selective, uncompiled = kept
    assert selective < bound * plain
    assert selective < 1.05 * uncompiled


def test_selective_recomputation_computes_no_product_again():
    flops = []
    for with_cp in (False, 'selective', True):
        block = Block(64, 4, layer_scale=0.1, with_cp=with_cp).train()
        with FlopCounterMode(display=False) as counter:
            block(torch.randn(2, 50, 64, requires_grad=True), (7, 7)).sum().backward()
        flops.append(counter.get_total_flops())
    assert flops[0] == flops[1] < flops[2]


@pytest.mark.parametrize('trained', [True, False])
def test_compiled_selective_recomputation_computes_no_product_again(trained):
    """Attention with a trained bias (products) and with another (one fused operator)."""
    torch._dynamo.reset()
    graphs = []

    def keep(graph, inputs):
        graphs.append([str(node.target) for node in graph.graph.nodes])
        return make_boxed_func(graph)

    partition = min_cut_rematerialization_partition
    backend = aot_autograd(fw_compiler=keep, bw_compiler=keep, partition_fn=partition)
    block = Block(64, 4, layer_scale=0.1, with_cp='selective').train()
    block.compile(backend=backend, fullgraph=True)
    bias = torch.randn(4, 50, 50, requires_grad=trained)
    block(torch.randn(2, 50, 64, requires_grad=True), (7, 7), bias).sum().backward()
    forward, backward = ([name for name in graph if name in PRODUCTS] for graph in graphs)
    assert len(forward) == (6 if trained else 5)
    assert [name for name in backward if 'addmm' in name or 'cpu.default' in name] == []
    assert len(backward) == (12 if trained else 8)


def test_recomputation_keeps_small_layer_scales_in_half_precision():
    """1e-5 (large) times a weight is no number of float16."""
    x, gradients = torch.randn(2, 7, 64), []
    for with_cp, enabled in ((False, False), (False, True), ('selective', True)):
        torch.manual_seed(0)
        block = Block(64, 4, layer_scale=1e-5, with_cp=with_cp).train()
        block.init_weights(24)
        with torch.autocast('cpu', torch.float16, enabled=enabled):
            out = block(x, GRID)
        ((out.float() - x) * 1e5).square().sum().backward()
        gradients.append([p.grad for p in block.parameters()])
    for exact, plain, selective in zip(*gradients, strict=True):
        scale = exact.abs().max()
        assert (selective - exact).abs().max() <= 2 * (plain - exact).abs().max() + 1e-3 * scale


def test_unknown_recomputation_is_refused():
    with pytest.raises(ValueError, match="False, True or 'selective', but 'all' was given"):
        Block(16, 2, with_cp='all')
