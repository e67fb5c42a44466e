"""Every number of the reference's ADE20K recipes, compared with what the configs build."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from timm.layers import DropPath
from torch import nn

from beitv2_mm.segmentation import ADE20K, BEiTV2Segmentor
from support.reference import OFFICIAL, count, full_size, optimizer_groups, read, transforms

pytestmark = pytest.mark.cpu_only(reason='settings and sizes, nothing is computed')

MIM, IN21K = '', '_ft21k'


class Recipe(NamedTuple):
    """160k iterations, batch 2 x 8, wd 0.05, warm-up 1500 from 1e-6 in all."""

    file: str
    arch: str
    start: str
    lr: float
    layer_decay: float
    drop_path: float
    layer_scale: float
    blocks: tuple[int, ...]
    channels: int
    millions: int
    crop: int = 512
    stride: int = 341
    resize: tuple[int, int] = (2048, 512)


BASE = ('base', MIM, 5e-5, 0.75, 0.15, 0.1, (3, 5, 7, 11), 768, 163)
LARGE = ('large', MIM, 3e-5, 0.9, 0.2, 1e-6, (7, 11, 15, 23), 1024, 441)
RECIPES = [
    Recipe('beitv2_base_8xb2_160k_ade20k_512', *BASE),
    Recipe('beitv2_base_8xb2_160k_ade20k_512_from_in21k', 'base', IN21K, *BASE[2:]),
    Recipe('beitv2_large_8xb2_160k_ade20k_512', *LARGE),
    Recipe('beitv2_large_8xb2_160k_ade20k_512_from_in21k', 'large', IN21K, *LARGE[2:]),
    Recipe('beitv2_base_8xb2_160k_ade20k_640', *BASE, 640, 426, (2560, 640)),
]
SCALES = (0.5, 0.75, 1, 1.25, 1.5, 1.75)


@pytest.fixture(params=RECIPES, ids=lambda recipe: recipe.file)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return request.param


@pytest.fixture
def cfg(recipe: Recipe) -> Config:
    return read('segmentation', recipe.file)


def rates(cfg: Config) -> Iterator[float]:
    """The base learning rate at every iteration."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    scheduler = PARAM_SCHEDULERS.build(
        dict(cfg.param_scheduler, end=cfg.train_cfg.max_iters),  # a runner fills `end` in
        default_args=dict(optimizer=optimizer),
    )
    optimizer.step()  # once, for the schedulers ask for it; 160,000 would take their time
    for _ in range(cfg.train_cfg.max_iters):
        yield optimizer.param_groups[0]['lr']
        scheduler.step()


def test_network(recipe: Recipe, cfg: Config) -> None:
    model = full_size(cfg)
    backbone, head, auxiliary = model.backbone, model.decode_head, model.auxiliary_head
    assert type(model) is BEiTV2Segmentor
    assert count(model) == pytest.approx(recipe.millions * 1e6, rel=0.01)
    assert tuple(backbone.out_indices) == recipe.blocks
    assert (backbone.embed_dims, backbone.layer_scale) == (recipe.channels, recipe.layer_scale)
    assert (backbone.grid, backbone.patch_size) == ((recipe.crop // 16,) * 2, (16, 16))
    assert (backbone.position, backbone.out_type, backbone.norm) == ('layerwise', 'featmap', None)
    last = backbone.blocks[-1].drop_path
    assert isinstance(last, DropPath) and last.drop_prob == pytest.approx(recipe.drop_path)
    assert cfg.model.backbone.init_cfg.checkpoint == (
        f'{OFFICIAL}beitv2_{recipe.arch}_patch16_224_pt1k{recipe.start}.pth'
    )
    assert (head.channels, head.num_classes, head.dropout_ratio) == (recipe.channels, 150, 0.1)
    assert [pool[0].output_size for pool in head.psp_modules] == [1, 2, 3, 6]
    assert list(head.in_channels) == [recipe.channels] * 4
    assert head.loss_decode.loss_weight == 1 and not head.align_corners
    assert (auxiliary.channels, auxiliary.in_index, auxiliary.num_convs) == (256, 2, 1)
    assert auxiliary.loss_decode.loss_weight == 0.4 and not auxiliary.concat_input
    assert auxiliary.dropout_ratio == 0.1 and auxiliary.num_classes == 150
    assert cfg.sync_bn == 'torch' and isinstance(head.fpn1[1], nn.BatchNorm2d)


def test_optimizer(recipe: Recipe, cfg: Config) -> None:
    model = full_size(cfg)
    groups = optimizer_groups(cfg, model)
    assert cfg.optim_wrapper.constructor is LearningRateDecayOptimWrapperConstructor
    depth = len(model.backbone.blocks)
    for name, levels in (
        ('cls_token', depth + 1),
        ('patch_embed.proj.weight', depth + 1),
        ('blocks.0.attn.qkv.weight', depth),
        (f'blocks.{depth - 1}.mlp.fc2.weight', 1),
        ('fpn1.0.weight', 0),
        ('decode_head.conv_seg.weight', 0),
        ('auxiliary_head.conv_seg.weight', 0),
    ):
        assert groups[name]['lr'] == pytest.approx(recipe.lr * recipe.layer_decay**levels), name
        assert groups[name]['weight_decay'] == 0.05, name
    for name in ('blocks.0.gamma_1', 'blocks.0.norm1.weight', 'fpn1.1.weight', 'fpn2.0.bias'):
        assert groups[name]['weight_decay'] == 0, name
    assert all(group['betas'] == (0.9, 0.999) for group in groups.values())
    assert not cfg.optim_wrapper.get('clip_grad') and not cfg.optim_wrapper.get('dtype')
    assert cfg.optim_wrapper.type.__name__ == 'mixed_precision'
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (2, 16)


def test_schedule(recipe: Recipe, cfg: Config) -> None:
    assert cfg.train_cfg.max_iters == 160000
    found = dict(enumerate(rates(cfg)))
    assert found[0] == pytest.approx(1e-6)
    assert found[750] == pytest.approx((1e-6 + recipe.lr) / 2, rel=2e-3)
    assert found[1500] == pytest.approx(recipe.lr, rel=1e-3)
    assert found[80750] == pytest.approx(recipe.lr / 2, rel=1e-3)
    assert found[159999] == pytest.approx(0, abs=recipe.lr * 1e-4)


def test_data(recipe: Recipe, cfg: Config) -> None:
    crop = (recipe.crop,) * 2
    train = cfg.train_dataloader.dataset
    steps = transforms(train.pipeline)
    assert list(steps) == [
        'LoadImageFromFile',
        'LoadMask',
        'RandomResize',
        'RandomCrop',
        'RandomFlip',
        'PhotoMetricDistortion',
        'PackSegInputs',
    ]
    resize, cut = steps['RandomResize'], steps['RandomCrop']
    assert (resize.scale, resize.ratio_range, resize.keep_ratio) == (recipe.resize, (0.5, 2), True)
    assert (cut.crop_size, cut.cat_max_ratio) == (crop, 0.75)
    assert steps['RandomFlip'].prob == 0.5
    assert cfg.model.data_preprocessor.size == crop
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.type is ADE20K and loader.dataset.reduce_zero_label
    test = cfg.test_dataloader.dataset
    assert test.data_prefix.img_path == 'images/validation'
    assert transforms(test.pipeline)['Resize'].scale == recipe.resize
    settings = cfg.model.test_cfg
    assert (settings.mode, settings.crop_size) == ('slide', crop)
    assert settings.stride == (recipe.stride,) * 2


def test_scales_and_flips(recipe: Recipe, cfg: Config) -> None:
    scales, flips, *_ = cfg.tta_pipeline[1].transforms
    assert [step.scale for step in scales] == [
        (recipe.resize[0] * scale, recipe.resize[1] * scale) for scale in SCALES
    ]
    assert [(step.prob, step.direction) for step in flips] == [(0, 'horizontal'), (1, 'horizontal')]
