"""Relative position index, bias tables and position embeddings on any grid."""

import copy
from collections import defaultdict

import pytest
import torch
from torch import nn

from beitv2_mm.layers import (
    RelativePositionBias,
    position,
    relative_position_index,
    resize_bias_table,
    resize_pos_embed,
    table_size,
)


@pytest.mark.parametrize('grid', [(1, 1), (1, 5), (2, 3), (3, 2), (4, 4)])
def test_index_has_one_row_for_each_offset(grid):
    index = relative_position_index(grid)
    rows, columns = grid
    seen = defaultdict(set)
    for i in range(rows * columns):
        for j in range(rows * columns):
            offset = i // columns - j // columns, i % columns - j % columns
            seen[offset].add(index[1 + i, 1 + j].item())
    assert all(len(found) == 1 for found in seen.values())
    used = {found.pop() for found in seen.values()}
    assert used == set(range(table_size(grid) - 3))
    cls_to_patch, patch_to_cls, cls = (table_size(grid) - k for k in (3, 2, 1))
    assert (index[0, 1:] == cls_to_patch).all()
    assert (index[1:, 0] == patch_to_cls).all()
    assert index[0, 0] == cls


def offsets_table(grid, function):
    """A table whose value is a function of the offset; CLS rows 7, 8, 9."""
    y, x = (torch.arange(1 - n, n).float() for n in grid)
    values = function(y[:, None], x[None, :]).expand(len(y), len(x))
    return torch.cat([values.flatten(), torch.tensor([7.0, 8, 9])])[:, None]


@pytest.mark.parametrize(
    ('source', 'target'),
    [((4, 4), (7, 7)), ((4, 4), (4, 7)), ((5, 3), (3, 8)), ((2, 2), (5, 3)), ((1, 1), (3, 2))],
)
def test_peer_bug_any_resolution_change(source, target):
    constant = resize_bias_table(
        offsets_table(source, lambda y, x: y * 0 + 3 + x * 0), source, target
    )
    assert len(constant) == table_size(target)
    torch.testing.assert_close(constant[:-3], torch.full((table_size(target) - 3, 1), 3.0))
    assert constant[-3:].flatten().tolist() == [7, 8, 9]
    # an even function of the offset stays one, and what grows along y grows along y alone
    even = resize_bias_table(offsets_table(source, lambda y, x: y.abs() + 0 * x), source, target)
    even = even[:-3].view(2 * target[0] - 1, 2 * target[1] - 1)
    torch.testing.assert_close(even, even.flip(0))
    torch.testing.assert_close(even, even[:, :1].expand_as(even))


def test_resize_of_rows_and_columns_is_not_mixed_up():
    table = torch.randn(table_size((3, 5)), 2)
    turned = table[:-3].view(5, 9, 2).transpose(0, 1).flatten(0, 1)
    turned = torch.cat([turned, table[-3:]])
    out = resize_bias_table(table, (3, 5), (6, 4))
    back = resize_bias_table(turned, (5, 3), (4, 6))
    torch.testing.assert_close(out[:-3].view(11, 7, 2), back[:-3].view(7, 11, 2).transpose(0, 1))


def test_same_grid_is_left_alone():
    table, embed = torch.randn(table_size((3, 4)), 2), torch.randn(1, 13, 6)
    assert resize_bias_table(table, (3, 4), (3, 4)) is table
    assert resize_pos_embed(embed, (3, 4), (3, 4)) is embed


def test_tables_of_another_grid_are_refused():
    with pytest.raises(ValueError, match='3 x 4 grid has 38 rows, this one has 52'):
        resize_bias_table(torch.zeros(52, 2), (3, 4), (4, 4))
    with pytest.raises(ValueError, match='3 x 4 grid has 13 rows, this one has 17'):
        resize_pos_embed(torch.zeros(1, 17, 2), (3, 4), (4, 4))


def test_pos_embed_on_other_grids():
    embed = torch.cat([torch.full((1, 1, 2), 9.0), torch.full((1, 12, 2), 3.0)], dim=1)
    out = resize_pos_embed(embed, (3, 4), (5, 2))
    assert out.shape == (1, 11, 2)
    assert (out[:, 0] == 9).all()
    torch.testing.assert_close(out[:, 1:], torch.full((1, 10, 2), 3.0))
    rows = torch.arange(3.0).repeat_interleave(4).view(1, 12, 1)
    out = resize_pos_embed(torch.cat([rows[:, :1], rows], 1), (3, 4), (6, 8))[0, 1:, 0].view(6, 8)
    assert (out.diff(dim=0) > -1e-6).all()
    torch.testing.assert_close(out, out[:, :1].expand(6, 8))


def test_gradient_reaches_the_table_through_a_resize():
    bias = RelativePositionBias((4, 4), 2)
    bias((3, 6)).sum().backward()
    assert (bias.relative_position_bias_table.grad != 0).all()


def test_training_after_inference_mode():
    """What is cached in inference mode must not poison training in the same process."""
    position._index.cache_clear()
    position._matrices.cache_clear()
    bias = RelativePositionBias((4, 4), 2)
    with torch.inference_mode():
        bias((4, 6))
    bias((4, 6)).sum().backward()
    assert bias.relative_position_bias_table.grad is not None


def step(optimizer, **settings):
    def change(bias):
        table = bias.relative_position_bias_table
        table.grad = torch.ones_like(table)
        optimizer([table], lr=0.1, **settings).step()

    return change


CHANGES = dict(
    load=lambda bias: bias.load_state_dict(
        {'relative_position_bias_table': torch.ones(table_size((4, 4)), 2)}
    ),
    assign=lambda bias: bias.load_state_dict(
        {'relative_position_bias_table': torch.ones(table_size((4, 4)), 2)}, assign=True
    ),
    half=lambda bias: bias.half(),
    there_and_back=lambda bias: bias.half().float(),
    sgd=step(torch.optim.SGD),
    adamw=step(torch.optim.AdamW),
    foreach=step(torch.optim.AdamW, foreach=True),
    fused=step(torch.optim.AdamW, fused=True),
    average=lambda bias: bias.relative_position_bias_table.data.mul_(2),  # mmengine's EMAHook
    inference=torch.inference_mode()(
        lambda bias: bias.relative_position_bias_table.add_(1)  # in place of a normal tensor
    ),
    replaced=lambda bias: setattr(
        bias, 'relative_position_bias_table', nn.Parameter(torch.ones(table_size((4, 4)), 2))
    ),
)


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize('grid', [(4, 4), (3, 6)])
@pytest.mark.cpu_only(reason='on other devices no bias is kept')
def test_bias_is_kept_until_its_table_changes(change, grid):
    torch.manual_seed(0)
    bias = RelativePositionBias((4, 4), 2).eval()
    with torch.no_grad():
        bias.relative_position_bias_table.normal_()
        first = bias(grid)
        assert bias(grid) is first
    change(bias)
    with torch.no_grad():
        table = bias.relative_position_bias_table
        expected = position.gather_bias(table, (4, 4), grid)
        assert torch.equal(bias(grid), expected)
        assert bias(grid).dtype == table.dtype
        assert not torch.equal(expected, first)


@pytest.mark.cpu_only(reason='on other devices no bias is kept')
def test_bias_is_kept_for_one_grid_and_one_module():
    bias = RelativePositionBias((4, 4), 2).eval()
    with torch.no_grad():
        small, large = bias((3, 3)), bias((5, 5))
        assert small.shape == (2, 10, 10) and large.shape == (2, 26, 26)
        twin = copy.deepcopy(bias)
        twin.relative_position_bias_table.fill_(1)
        torch.testing.assert_close(twin((5, 5)), torch.ones(2, 26, 26))
        assert bias((5, 5)) is large
    assert bias((5, 5)).requires_grad  # wherever gradients may be asked for
    bias.relative_position_bias_table.requires_grad_(False)
    with torch.inference_mode():
        kept = bias((5, 5))
    q = torch.randn(1, 2, 26, 4, requires_grad=True)
    nn.functional.scaled_dot_product_attention(
        q, q, q, attn_mask=bias((5, 5))[None]
    ).sum().backward()
    assert bias((5, 5)) is kept


def test_compiled_bias_follows_its_table():
    bias = RelativePositionBias((4, 4), 2).eval()
    compiled = torch.compile(bias, fullgraph=True, backend='eager')
    for value in (1.0, 2.0):
        with torch.no_grad():
            bias.relative_position_bias_table.fill_(value)
            torch.testing.assert_close(compiled((3, 6)), torch.full((2, 19, 19), value))


def test_compiled_gather_is_an_operator_with_the_plain_gradient():
    torch._dynamo.reset()
    grid, graphs = (3, 6), []
    table = torch.randn(table_size((4, 4)), 2, requires_grad=True)
    weights = torch.randn(2, 19, 19)

    def keep(graph, inputs):
        graphs.append(graph)
        return graph

    for backend in (keep, 'aot_eager'):
        compiled = torch.compile(position.gather_bias, fullgraph=True, backend=backend)
        plain = position.gather_bias(table, (4, 4), grid)
        found = compiled(table, (4, 4), grid)
        assert torch.equal(found, plain)
        gradients = [torch.autograd.grad((b * weights).sum(), table)[0] for b in (found, plain)]
        torch.testing.assert_close(*gradients)
    operator = torch.ops.beitv2_mm.select_columns.default
    assert [node.target for node in graphs[0].graph.nodes].count(operator) == 1
    index = position.relative_position_index(grid).flatten()
    torch.library.opcheck(operator, (torch.randn(2, 80, requires_grad=True), index))


def test_index_is_in_no_checkpoint():
    assert list(RelativePositionBias((4, 4), 2).state_dict()) == ['relative_position_bias_table']
