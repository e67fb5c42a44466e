"""Every number of ViTDet's recipe, in the configs as they are built."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from beitv2_mm.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS, type_name

pytest.importorskip('mmdet')

pytestmark = pytest.mark.cpu_only(reason='settings and sizes, nothing is computed')

CONFIGS = Path(__file__).parents[1] / 'configs/detection'
KINDS = ('base_mask_rcnn', 'large_mask_rcnn', 'base_cascade', 'large_cascade')
# Millions of parameters, layer decay, drop path, blocks that see the whole image.
SIZES = dict(
    base_mask_rcnn=(110.8, 0.7, 0.1, (2, 5, 8, 11)),
    large_mask_rcnn=(330.7, 0.8, 0.4, (5, 11, 17, 23)),
    base_cascade=(146.3, 0.7, 0.1, (2, 5, 8, 11)),
    large_cascade=(366.2, 0.8, 0.4, (5, 11, 17, 23)),
)


def read(name: str) -> Config:
    return Config.fromfile(CONFIGS / f'beitv2_{name}.py')


@pytest.mark.parametrize('suffix', ['', '_from_in21k'])
@pytest.mark.parametrize('kind', KINDS)
def test_networks(kind: str, suffix: str) -> None:
    cfg = read(f'{kind}_64xb1_100e_coco{suffix}')
    millions, decay, drop_path, blocks = SIZES[kind]
    weights = 'pt1k_ft21k' if suffix else 'pt1k'
    file = f'beitv2_{kind.split("_")[0]}_patch16_224_{weights}.pth'
    assert cfg.model.backbone.init_cfg.checkpoint.endswith(f'/{file}')
    init_default_scope('mmdet')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions
    backbone = model.backbone
    assert backbone.drop_path_rates[-1] == drop_path
    windows = [getattr(block.attn, 'window_size', None) for block in backbone.blocks]
    assert windows == [None if i in blocks else 14 for i in range(backbone.num_layers)]
    assert backbone.grid == (14, 14)  # tables of 27 x 27 offsets, which a window needs
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == decay
    assert len(model.rpn_head.rpn_conv) == 2
    for head in model.roi_head.bbox_head if 'cascade' in kind else [model.roi_head.bbox_head]:
        assert len(head.shared_convs) == 4 and len(head.shared_fcs) == 1
        assert type(head.shared_convs[0].norm).__name__ == 'LayerNorm2d'


@pytest.mark.parametrize('kind', KINDS)
def test_training(kind: str) -> None:
    cfg = read(f'{kind}_64xb1_100e_coco')
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, tuple(optimizer.betas)) == (1e-4, (0.9, 0.999))
    assert optimizer.weight_decay == 0.1
    assert cfg.train_cfg.max_iters == 184375  # 100 epochs of 118,000 images in batches of 64
    warmup, steps = cfg.param_scheduler
    assert (warmup.end, warmup.start_factor) == (250, 0.001)
    assert (list(steps.milestones), steps.gamma) == ([163889, 177546], 0.1)
    pipeline = {type_name(step): step for step in cfg.train_dataloader.dataset.pipeline}
    assert tuple(pipeline['RandomResize'].scale) == (1024, 1024)
    assert tuple(pipeline['RandomResize'].ratio_range) == (0.1, 2.0)
    assert tuple(pipeline['RandomCrop'].crop_size) == (1024, 1024)
    assert cfg.auto_scale_lr.base_batch_size == 64


def test_cascade_has_three_overlaps() -> None:
    cfg = read('base_cascade_64xb1_100e_coco')
    assert [part.assigner.pos_iou_thr for part in cfg.model.train_cfg.rcnn] == [0.5, 0.6, 0.7]
    heads = cfg.model.roi_head.bbox_head
    assert [head.bbox_coder.target_stds[0] for head in heads] == [0.1, 0.05, 0.033]
    assert all(head.reg_class_agnostic for head in heads)


def test_rates_fall_by_layers_under_a_detector() -> None:
    cfg = read('base_mask_rcnn_64xb1_100e_coco')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    wrapper = dict(cfg.optim_wrapper, type='mmengine.optim.OptimWrapper')
    paramwise = wrapper.pop('paramwise_cfg')
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(type=wrapper.pop('constructor'), optim_wrapper_cfg=wrapper, paramwise_cfg=paramwise)
    )
    groups = {g['param_name']: g for g in constructor(model).optimizer.param_groups}
    expected = {
        'backbone.patch_embed.proj.weight': 0.7**13,
        'backbone.blocks.0.mlp.fc1.weight': 0.7**12,
        'backbone.blocks.11.mlp.fc1.weight': 0.7,
        'neck.levels.0.0.weight': 1.0,
        'roi_head.mask_head.convs.0.conv.weight': 1.0,
    }
    for name, factor in expected.items():
        assert groups[name]['lr'] == pytest.approx(1e-4 * factor), name
    assert groups['backbone.blocks.0.norm1.weight']['weight_decay'] == 0
    assert groups['backbone.blocks.0.attn.q_bias']['weight_decay'] == 0
    assert groups['backbone.blocks.0.mlp.fc1.weight']['weight_decay'] == 0.1
    assert 'backbone.cls_token' not in groups  # windows do not read it
