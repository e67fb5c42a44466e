"""Sliding windows in batches against mmseg's, one by one; images of any size."""

import pytest
import torch
from mmengine.model import convert_sync_batchnorm
from mmengine.runner import runner
from mmseg.models import EncoderDecoder
from torch import Tensor, nn

from beitv2_mm.segmentation import BEiTV2Segmentor
from support.segmentors import build_segmentor

SLIDE = dict(mode='slide', crop_size=(512, 512), stride=(341, 341))


def metas(image: Tensor) -> list[dict]:
    return [dict(ori_shape=image.shape[2:], img_shape=image.shape[2:]) for _ in image]


@pytest.mark.parametrize('size', [(517, 700), (300, 900), (512, 512), (1, 20)])
@torch.no_grad()
def test_batched_windows_equal_one_by_one(size: tuple[int, int]) -> None:
    model = build_segmentor(**SLIDE, windows_per_batch=3)
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    mine = model.inference(image, metas(image))
    assert mine.shape == (2, 3, *size)
    expected = EncoderDecoder.slide_inference(model, image, metas(image))
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize('limit', [1, 2, 8])
@torch.no_grad()
def test_no_batch_has_more_windows_than_allowed(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_segmentor(
        mode='slide', crop_size=(64, 64), stride=(43, 43), windows_per_batch=limit
    )
    seen = []
    original = BEiTV2Segmentor.extract_feat
    monkeypatch.setattr(
        BEiTV2Segmentor, 'extract_feat', lambda m, x: seen.append(len(x)) or original(m, x)
    )
    image = torch.rand(2, 3, 70, 100)
    model.inference(image, metas(image))
    assert sum(seen) == 2 * 2 * 2 and max(seen) == limit
    model.test_cfg.windows_per_batch = 0
    with pytest.raises(ValueError, match='at least 1'):
        model.inference(image, metas(image))


@pytest.mark.parametrize('size', [(33, 47), (16, 64), (5, 7)])
@torch.no_grad()
def test_whole_images_of_any_size(size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size)
    assert build_segmentor().inference(image, metas(image)).shape == (1, 3, *size)
    assert build_segmentor(patch_size=8).inference(image, metas(image)).shape == (1, 3, *size)


def test_layer_depths() -> None:
    model = build_segmentor()
    depths = {name: model.get_layer_depth(name) for name, _ in model.named_parameters()}
    assert depths['backbone.cls_token'] == (0, 6)
    assert depths['backbone.blocks.3.attn.qkv.weight'] == (4, 6)
    assert depths['decode_head.fpn1.0.weight'] == depths['auxiliary_head.conv_seg.bias'] == (5, 6)


def test_batch_norm_is_synchronised_by_the_runner_on_gpus(device: str) -> None:
    plain = build_segmentor()
    if device != 'cuda':
        assert runner.convert_sync_batchnorm(plain, 'torch') is plain  # two CPU processes train
    synced = convert_sync_batchnorm(plain, 'torch')
    kinds = {type(m) for m in synced.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    assert kinds == {nn.SyncBatchNorm}
    assert isinstance(synced.decode_head.fpn1[1], nn.SyncBatchNorm)
