"""Positions of one grid in a network of another one."""

import pytest
import torch

from beitv2_mm.checkpoint import (
    CheckpointError,
    load,
)
from beitv2_mm.layers import resize_pos_embed, table_size
from support.tiny import (
    backbone,
    randomize,
)


@pytest.mark.parametrize(
    ('source', 'target'), [((4, 4), (6, 6)), ((4, 4), (3, 5)), ((6, 6), (2, 2))]
)
@pytest.mark.parametrize('position', ['layerwise', 'absolute'])
def test_positions_are_resized(source, target, position):
    def build(grid):
        return backbone(position=position, img_size=(8 * grid[0], 8 * grid[1]))

    old, new = randomize(build(source)), build(target)
    report = load(new, old.state_dict())
    if position == 'absolute':
        assert list(report.resized) == ['pos_embed']
        torch.testing.assert_close(
            new.pos_embed.data, resize_pos_embed(old.pos_embed.data, source, target)
        )
    else:
        assert len(report.resized) == 3
        assert report.resized['blocks.1.attn.relative_position_bias_table'] == (
            (table_size(source), 2), (table_size(target), 2)
        )  # fmt: skip
    assert f'-> ({table_size(target)}, 2)' in str(report) or position == 'absolute'
    # a network made for the new size computes what the old one does on that size
    image = torch.rand(2, 3, 8 * target[0], 8 * target[1])
    torch.testing.assert_close(new(image)[0], old(image)[0])


@pytest.mark.parametrize('position', ['layerwise', 'absolute'])
@pytest.mark.parametrize('target', [(5, 2), (4, 4), (2, 5)])
def test_source_that_is_not_square(position, target):
    """(2, 5) and (5, 2) have tables of one shape: only the given grid tells them apart."""
    old = randomize(backbone(position=position, img_size=(16, 40)))
    new = backbone(position=position, img_size=(8 * target[0], 8 * target[1]))
    load(new, old.state_dict(), source_grid=(2, 5))
    image = torch.rand(2, 3, 8 * target[0], 8 * target[1])
    torch.testing.assert_close(new(image)[0], old(image)[0])
    if target == (4, 4):
        with pytest.raises(
            CheckpointError, match=r'not square.*Pass source_grid=\(rows, columns\)'
        ):
            load(new, old.state_dict())
        with pytest.raises(CheckpointError, match='3 x 5 grid has'):
            load(new, old.state_dict(), source_grid=(3, 5))
