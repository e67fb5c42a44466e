"""Pictures and page of attention: what stands where, and what the page decodes to."""

import base64
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from beitv2_mm.layers.attention_maps import attention_probabilities, query_map
from beitv2_mm.visualization.attention_page import MAX_VALUES, attention_page
from beitv2_mm.visualization.attention_pictures import (
    YELLOW,
    colour_table,
    heat_map,
    mark_patch,
    mask_picture,
    overview,
)
from support.tiny import backbone

IMAGE = Image.new('RGB', (60, 40), (120, 160, 200))


def test_heat_map_is_brightest_at_the_maximum() -> None:
    values = np.array([[0.1, 0.2, 0.3], [0.4, 0.9, 0.5]])
    pixels = np.asarray(heat_map(values, (60, 40)))
    assert pixels.shape == (40, 60, 3)
    assert pixels[30, 30].tolist() == colour_table()[-1].tolist()
    assert pixels[5, 5].tolist() == colour_table()[0].tolist()
    assert np.asarray(heat_map(np.ones((2, 2)), (4, 4))).std(axis=(0, 1)).max() == 0


def test_mask_keeps_the_image_inside_and_has_a_contour() -> None:
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:5] = True
    pixels = np.asarray(mask_picture(IMAGE, mask))
    assert pixels[15, 25].tolist() == [120, 160, 200]
    assert (pixels[35, 55] < 100).all()
    yellow = (pixels == YELLOW).all(axis=-1)
    assert yellow[10, 20:50].all() and yellow[29, 20:50].all()
    assert yellow[10:30, 20].all() and yellow[10:30, 49].all()
    assert not yellow[:10].any() and not yellow[:, 50:].any()


def test_query_patch_is_marked() -> None:
    changed = (np.asarray(mark_patch(IMAGE, (4, 6), 2, 3)) != np.asarray(IMAGE)).any(axis=-1)
    assert changed[25, :30].all() and changed[:20, 35].all() and changed[20:30, 30].all()
    assert not changed[22:28, 32:38].any()  # the patch itself stays visible


def test_overview_warns_in_red() -> None:
    maps = np.random.default_rng(0).random((4, 2, 3))
    plain, warned = (np.asarray(overview(IMAGE, maps, 1, 2, 'x', w)) for w in ('', 'RANDOM'))
    red = [
        ((p[..., 0] > 180) & (p[..., 1] < 90) & (p[..., 3] > 0))[:26].sum() for p in (plain, warned)
    ]
    assert red[0] == 0 and red[1] > 20
    assert warned.shape[0] == plain.shape[0] + 26


@pytest.mark.parametrize('block', [4, -4])
def test_blocks_that_are_not_there(block: int) -> None:
    with pytest.raises(ValueError, match=f'no block {block}: blocks are 0 to 2'):
        attention_probabilities(backbone().eval(), torch.zeros(1, 3, 32, 32), block)


@pytest.mark.parametrize(('row', 'column'), [(2, 0), (0, 3), (-1, 0)])
def test_patch_outside_the_grid(row: int, column: int) -> None:
    with pytest.raises(
        ValueError, match=r'outside the 2 x 3 grid: rows are 0 to 1, columns 0 to 2'
    ):
        query_map(torch.zeros(1, 7, 7), (2, 3), row, column)


def decode(text: str) -> tuple[dict, list[np.ndarray]]:
    """The data of a page and its maps, (N, N) each."""
    match = re.search(r'^const \{.*\} = (\{.*\});$', text, re.M)
    assert match
    data = json.loads(match[1])
    count = data['rows'] * data['columns']
    maps = [np.frombuffer(base64.b64decode(m), np.uint8).reshape(count, -1) for m in data['maps']]
    return data, maps


def test_page_holds_every_patch_of_every_head() -> None:
    attention = np.random.default_rng(0).random((2, 6, 6)).astype(np.float32)
    text = attention_page(IMAGE, attention, (2, 3), (1, 2), 'a <b>', 'caption')
    data, maps = decode(text)
    assert data['names'] == ['mean of heads', 'head 0', 'head 1']
    assert (data['rows'], data['columns'], data['start']) == (2, 3, [1, 2])
    for values, expected in zip(maps, [attention.mean(axis=0), *attention], strict=True):
        low, high = expected.min(axis=1, keepdims=True), expected.max(axis=1, keepdims=True)
        np.testing.assert_allclose(
            values / 255, (expected - low) / (high - low), atol=0.5 / 255 + 1e-6
        )
    assert data['scales'][0] == pytest.approx(attention.mean(axis=0).max(axis=1), rel=0.01)
    assert 'a &lt;b&gt;' in text and 'http' not in text and 'src="data:' in text


def test_large_page_keeps_the_mean_alone() -> None:
    side = int((MAX_VALUES / 3) ** 0.5) + 1
    attention = np.ones((2, side, side), np.float32)
    data, maps = decode(attention_page(IMAGE, attention, (1, side), (0, 0), 't', 'c'))
    assert data['names'] == ['mean of heads'] and len(maps) == 1
    with pytest.raises(ValueError, match='choose a smaller input size'):
        attention_page(IMAGE, np.ones((1, 2001, 2001), np.float32), (1, 2001), (0, 0), 't', 'c')
