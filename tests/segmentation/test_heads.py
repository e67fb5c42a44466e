"""Pyramid and heads: strides, names, patch sizes."""

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from beitv2_mm.checkpoint import adapt, convert, official_name
from beitv2_mm.segmentation import BEiTV2FCNHead, BEiTV2UPerHead, pyramid_levels
from support.segmentors import build_segmentor, segmentor_config

HEAD = dict(in_channels=[6] * 4, channels=4, num_classes=3)


@pytest.mark.parametrize('patch_size', [16, 8, 4])
def test_pyramid_has_strides_of_4_to_32(patch_size: int) -> None:
    side = 64 // patch_size
    maps = [torch.rand(2, 6, side, 2 * side) for _ in range(4)]
    levels = BEiTV2UPerHead(patch_size=patch_size, **HEAD).eval().rescale(maps)
    assert [level.shape for level in levels] == [(2, 6, 64 // s, 128 // s) for s in (4, 8, 16, 32)]


def kinds(patch_size: int) -> list[str]:
    return [type(m).__name__ for level in pyramid_levels(patch_size, 4) for m in leaves(level)]


def leaves(module: nn.Module) -> list[nn.Module]:
    return list(module) if isinstance(module, nn.Sequential) else [module]


def test_layers_of_the_levels_are_the_official_ones() -> None:
    up, down = 'ConvTranspose2d', 'MaxPool2d'
    assert kinds(16) == [up, 'BatchNorm2d', 'GELU', up, up, 'Identity', down]
    assert kinds(8) == [up, 'Identity', down, down]
    pools = [level.kernel_size for level in pyramid_levels(8, 4)[2:]]
    assert pools == [2, 4]


def test_the_auxiliary_head_reads_the_level_of_stride_16() -> None:
    maps = [torch.rand(1, 6, 8, 8) for _ in range(4)]
    for patch_size, expected in ((16, maps[2]), (8, nn.functional.max_pool2d(maps[2], 2))):
        head = BEiTV2FCNHead(patch_size, in_channels=6, channels=4, num_classes=3)
        torch.testing.assert_close(head._transform_inputs(maps), expected)
        assert not list(head.rescale.parameters())


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match='4, 8 or 16'):
        BEiTV2UPerHead(patch_size=14, **HEAD)
    with pytest.raises(ValueError, match='four maps of one width'):
        BEiTV2UPerHead(in_channels=[6, 6, 6], channels=4, num_classes=3)


def official(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As in a published UPerNet file: the pyramid sits in the backbone."""
    return {
        name.replace('decode_head.fpn1', 'backbone.fpn1').replace(
            'decode_head.fpn2', 'backbone.fpn2'
        ): value
        for name, value in weights.items()
    }


def test_official_upernet_checkpoints_load() -> None:
    model, other = build_segmentor(), MODELS.build(segmentor_config())
    weights = official(model.state_dict())
    weights['backbone.blocks.0.attn.relative_position_index'] = torch.zeros(17, 17)
    assert 'backbone.fpn1.0.weight' in weights and 'backbone.fpn2.0.weight' in weights
    adapted, report = adapt(weights, other)
    assert not report.missing and not report.unexpected and not report.resized
    other.load_state_dict(adapted)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert official_name('decode_head.fpn1.0.weight') == 'fpn1.0.weight'
    there = convert(model.state_dict(), 'official').state_dict
    assert set(official(model.state_dict())) <= set(there)
    back = convert(there, 'beitv2_mm').state_dict
    assert back.keys() == model.state_dict().keys()


def test_other_class_lists_keep_all_but_the_classifiers() -> None:
    _, report = adapt(official(build_segmentor().state_dict()), MODELS.build(five_classes()))
    assert set(report.dropped) == {
        f'{head}.conv_seg.{leaf}'
        for head in ('decode_head', 'auxiliary_head')
        for leaf in ('weight', 'bias')
    }


def five_classes() -> dict:
    return segmentor_config(classes=5)


def test_a_mim_checkpoint_starts_a_segmentor() -> None:
    from beitv2_mm.models import BEiTV2Backbone
    from support.tiny import ARCH

    mim = BEiTV2Backbone(
        {**ARCH, 'num_layers': 4}, 32, 16, position='shared', out_type='raw', with_mask_token=True
    )
    backbone = build_segmentor().backbone
    _, report = adapt(mim.state_dict(), backbone)
    assert len(report.copied) == 4 and len(report.resized) == 4 and not report.missing
    assert report.unexpected == ['mask_token', 'norm.weight', 'norm.bias']


def test_losses_train_every_parameter() -> None:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    model = build_segmentor().train()
    sample = SegDataSample(
        gt_sem_seg=PixelData(data=torch.randint(0, 3, (1, 64, 64))),
        metainfo=dict(img_shape=(64, 64)),
    )
    losses = model.loss(torch.rand(2, 3, 64, 64), [sample, sample])
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    assert {'decode.loss_ce', 'aux.loss_ce'} <= set(losses)
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert not idle


@pytest.mark.parametrize('kind', [dict(loss_name='loss_ce'), dict(loss_name='loss_other')])
def test_losses_and_accuracy_are_those_of_mmseg(kind):
    """Several losses, of one name or two, pixels to ignore, logits smaller than the labels."""
    losses = [dict(type='CrossEntropyLoss', loss_weight=w, **k) for w, k in ((1, {}), (0.4, kind))]
    head = BEiTV2UPerHead(**HEAD, loss_decode=losses)
    logits = torch.randn(2, head.num_classes, 8, 8)
    labels = torch.randint(0, head.num_classes, (2, 1, 16, 16))
    labels[0, :, :5] = 255
    samples = [SegDataSample() for _ in labels]
    for sample, label in zip(samples, labels, strict=True):
        sample.gt_sem_seg = PixelData(data=label)
    expected = BaseDecodeHead.loss_by_feat(head, logits, samples)
    expected['acc_seg'] = expected['acc_seg'].squeeze(0)
    torch.testing.assert_close(head.loss_by_feat(logits, samples), expected)
