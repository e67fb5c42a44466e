"""mmdet's own detectors and tools on the backbone, from plain text configs in an empty folder."""

from importlib.util import find_spec
from pathlib import Path

import mmengine
import pytest
import torch

from support.scenes import CLASSES, write_scenes
from support.tools import run_tool

pytest.importorskip('mmdet')

MMDET = Path(find_spec('mmdet').origin).parent / '.mim/tools'
BACKBONE = """
backbone = dict(
    _delete_=True, type='beitv2_mm.BEiTV2Backbone',
    arch=dict(embed_dims=32, num_layers=2, num_heads=2), img_size=32, patch_size=4,
    out_type='featmap', final_norm=True, window_size=8, global_blocks=(1,))
"""
DATA = f"""
data = dict(data_root='data/', metainfo=dict(classes={CLASSES}))
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=MASKS),
    dict(type='PackDetInputs')]
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, batch_sampler=None,
    dataset=dict(_delete_=True, type='CocoDataset', ann_file='annotations/train.json',
                 data_prefix=dict(img='images/train/'), pipeline=pipeline, **data))
val_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(_delete_=True, type='CocoDataset', ann_file='annotations/val.json',
                 data_prefix=dict(img='images/val/'), test_mode=True, pipeline=pipeline, **data))
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True, type='CocoMetric', ann_file='data/annotations/val.json', metric=['bbox'])
test_evaluator = val_evaluator
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=2, val_interval=2)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2))
param_scheduler = []
optim_wrapper = dict(
    _delete_=True, optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
    constructor='beitv2_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.8))
"""
NECK = """dict(
    _delete_=True, type='beitv2_mm.BEiTV2FeaturePyramid', in_channels=32, out_channels=WIDTH,
    patch_size=4, strides=STRIDES, num_outs=OUTS)"""


def neck(width: int, strides: tuple[int, ...], outs: int) -> str:
    return (
        NECK.replace('WIDTH', str(width))
        .replace('STRIDES', str(strides))
        .replace('OUTS', str(outs))
    )


HOSTS = dict(
    retinanet=f"""
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
model = dict(backbone=backbone, neck={neck(256, (4, 8, 16), 3)}, bbox_head=dict(
    num_classes=3, anchor_generator=dict(strides=[4, 8, 16])))
""",
    dino=f"""
_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
model = dict(
    backbone=backbone, neck={neck(256, (4, 8, 16), 4)}, num_queries=20,
    test_cfg=dict(max_per_img=10),
    encoder=dict(num_layers=1), decoder=dict(num_layers=1), bbox_head=dict(num_classes=3))
""",
    mask2former=f"""
_base_ = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
data_preprocessor = dict(batch_augments=[
    dict(type='BatchFixedSizePad', size=(64, 64), pad_mask=True)])
model = dict(
    data_preprocessor=data_preprocessor, backbone=backbone,
    neck={neck(64, (4, 8, 16, 32), 4).replace('_delete_=True, ', '')},
    panoptic_head=dict(
        in_channels=[64] * 4, num_things_classes=3, num_queries=10,
        pixel_decoder=dict(encoder=dict(num_layers=1)),
        transformer_decoder=dict(num_layers=1),
        loss_cls=dict(class_weight=[1.0] * 3 + [0.1])),
    panoptic_fusion_head=dict(num_things_classes=3), train_cfg=dict(num_points=64),
    test_cfg=dict(max_per_image=10))
""",
)


@pytest.mark.parametrize('host', HOSTS)
def test_detectors_train_and_evaluate(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_scenes(Path('data'))
    base, _, model = HOSTS[host].strip().partition('\n')
    text = '\n'.join([base, BACKBONE, DATA.replace('MASKS', str(host == 'mask2former')), model])
    Path('mine.py').write_text(text + "\ncustom_imports = dict(imports=['beitv2_mm'])\n")
    run_tool(MMDET / 'train.py', 'mine.py')
    checkpoint = torch.load('work_dirs/mine/iter_2.pth', weights_only=False)
    assert any('backbone.blocks.1.attn.qkv.weight' in name for name in checkpoint['state_dict'])
    scales = {group['lr_scale'] for group in checkpoint['optimizer']['param_groups']}
    assert len(scales) == 4  # embedding, two blocks, the rest
    run_tool(MMDET / 'test.py', 'mine.py', 'work_dirs/mine/iter_2.pth', '--work-dir', 'again')
    (metrics,) = Path('again').glob('*/*.json')
    assert mmengine.load(metrics) is not None
