"""Windowed attention against attention to the whole image, and without windows at all."""

import pytest
import torch

from beitv2_mm.checkpoint import load
from beitv2_mm.layers.position import gather_bias, gather_patch_bias, table_size
from beitv2_mm.layers.windows import join_windows, split_windows
from beitv2_mm.models import BEiTV2Backbone, BEiTV2FeaturePyramid

ARCH = dict(embed_dims=32, num_layers=4, num_heads=4)


def backbone(**settings: object) -> BEiTV2Backbone:
    torch.manual_seed(0)
    settings = dict(arch=ARCH, img_size=32, patch_size=4, out_type='featmap') | settings
    model = BEiTV2Backbone(**settings)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize('grid', [(4, 4), (6, 8), (5, 7), (1, 3)])
def test_windows_are_squares_of_the_image_and_join_again(grid: tuple[int, int]) -> None:
    rows, columns = grid
    x = torch.arange(1.0, 2 * rows * columns + 1).view(2, -1, 1)
    windows = split_windows(x, grid, 3)
    assert windows.shape == (2 * -(-rows // 3) * -(-columns // 3), 9, 1)
    first = x.unflatten(1, grid)[0, :3, :3, 0]
    inside = windows[0].view(3, 3)[: first.shape[0], : first.shape[1]]
    assert torch.equal(inside, first) and windows[0].count_nonzero() == first.numel()
    assert torch.equal(join_windows(windows, grid, 3), x)


def test_patch_bias_is_the_bias_without_cls() -> None:
    table = torch.randn(table_size((3, 4)), 2)
    whole = gather_bias(table, (3, 4), (5, 4))
    assert torch.equal(gather_patch_bias(table, (3, 4), (5, 4)), whole[:, 1:, 1:])


def test_a_large_bias_in_half_precision(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The values of the bias that is cast afterwards, and a gradient summed up in float32."""
    table = torch.randn(table_size((3, 4)), 2, requires_grad=True)
    weight = torch.randn(2, 36, 36).bfloat16()
    plain = gather_patch_bias(table, (3, 4), (6, 6)).bfloat16()
    (expected,) = torch.autograd.grad(plain, table, weight)
    monkeypatch.setattr('beitv2_mm.layers.gather.LARGE_BIAS', 0)
    with torch.autocast(device, torch.bfloat16):
        half = gather_patch_bias(table, (3, 4), (6, 6))
    assert half.dtype == torch.bfloat16 and torch.equal(half, plain)
    (found,) = torch.autograd.grad(half, table, weight)
    torch.testing.assert_close(found, expected)


def test_one_window_is_global_attention() -> None:
    """An image of one window; each of both bypasses CLS, and the tables are not resized."""
    image = torch.randn(2, 3, 32, 32)
    windowed = backbone(window_size=8)
    everywhere = backbone(window_size=8, global_blocks=(0, 1, 2, 3))
    everywhere.load_state_dict(windowed.state_dict())
    torch.testing.assert_close(windowed(image), everywhere(image))


def test_windows_do_not_see_each_other_and_global_blocks_do() -> None:
    image = torch.randn(1, 3, 48, 64)  # 12 x 16 patches
    other = image.clone()
    other[..., :16, :16] += 1
    for blocks, same in (((), True), ((2,), False)):
        model = backbone(window_size=4, global_blocks=blocks)
        (a,), (b,) = model(image), model(other)
        assert not torch.allclose(a[..., :4, :4], b[..., :4, :4])
        assert torch.allclose(a[..., 4:, 4:], b[..., 4:, 4:]) == same


def test_each_window_of_the_trained_size_is_an_image_of_its_own() -> None:
    image = torch.randn(1, 3, 64, 96)
    model = backbone(window_size=8)
    (whole,) = model(image)
    for row in range(2):
        for column in range(3):
            part = image[..., row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
            place = whole[..., row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
            torch.testing.assert_close(model(part)[0], place)


def test_checkpoints_fit_with_and_without_windows() -> None:
    plain, windowed = backbone(), backbone(window_size=4, global_blocks=(3,))
    assert plain.state_dict().keys() == windowed.state_dict().keys()
    load(windowed, plain.state_dict())
    assert torch.equal(windowed.blocks[0].attn.qkv.weight, plain.blocks[0].attn.qkv.weight)


@pytest.mark.parametrize('with_cp', [False, True, 'selective'])
def test_every_trained_parameter_has_a_gradient(with_cp: bool | str) -> None:
    model = backbone(window_size=3, global_blocks=(1,), with_cp=with_cp).train()
    model(torch.randn(2, 3, 32, 40))[0].square().sum().backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == [] and not model.cls_token.requires_grad


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match='global_blocks needs window_size'):
        backbone(global_blocks=(1,))
    with pytest.raises(ValueError, match=r'numbers from 0 to 3, but \[4\]'):
        backbone(window_size=4, global_blocks=(1, 4))
    with pytest.raises(ValueError, match="position='layerwise'"):
        backbone(window_size=4, position='shared')
    with pytest.raises(ValueError, match='no CLS token'):
        backbone(window_size=4, out_type='cls_token')
    with pytest.raises(ValueError, match='window_size is a number'):
        backbone(window_size=0)


@pytest.mark.parametrize('patch', [4, 8, 16])
def test_levels_of_the_pyramid_have_their_strides(patch: int) -> None:
    neck = BEiTV2FeaturePyramid(32, 16, patch, num_outs=5)
    maps = neck([torch.randn(1, 32, 128 // patch, 64 // patch)])
    sizes = [(128 // stride, 64 // stride) for stride in (4, 8, 16, 32, 64)]
    assert [tuple(level.shape[2:]) for level in maps] == sizes
    assert all(level.shape[1] == 16 for level in maps)


def test_pyramids_that_cannot_be_made() -> None:
    with pytest.raises(ValueError, match='stride 4 cannot be made from patches of 14'):
        BEiTV2FeaturePyramid(32, 16, 14)
