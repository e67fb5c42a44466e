"""Mask R-CNN on composites: real Fashion-MNIST items on real CIFAR-10 pictures, 64 px.

Command: python tools/prepare_composites.py --scenes --cifar data/cifar10 --out data/scenes \
    --counts 2000 300 500
    python tools/train.py configs/detection/beitv2_tiny_mask_rcnn_1xb16_400i_composites.py \
    --cfg-options model.backbone.init_cfg.1.checkpoint=PRETRAINED.pth
    (from scratch: model.backbone.init_cfg.1.checkpoint=None)
Hardware: two CPU cores, 0.8 s an iteration. Published: nothing. Measured here, on the test scenes,
means of three seeds: box AP 25.6, AP50 45.4, mask AP 22.5 from the quickstart's pretraining; 22.9,
44.5, 21.0 from scratch.
"""

from mmdet.models import Shared2FCBBoxHead
from mmengine.config import read_base

from beitv2_mm.engine import WarmupLinearLR

with read_base():
    from .._base_.detector import *

model.update(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        arch=dict(embed_dims=128, num_layers=4, num_heads=4),
        img_size=32,
        patch_size=4,
        drop_path_rate=0.0,
        window_size=8,
        global_blocks=(1, 3),
        init_cfg=[
            dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.1),
            dict(type='Pretrained', checkpoint='work_dirs/pretrain.pth'),
        ],
    ),
    neck=dict(in_channels=128, out_channels=64, patch_size=4, strides=(4, 8, 16), num_outs=3),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        num_convs=1,
        anchor_generator=dict(scales=[4], strides=[4, 8, 16]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, featmap_strides=[4, 8], finest_scale=28),
        bbox_head=dict(
            type=Shared2FCBBoxHead,
            in_channels=64,
            fc_out_channels=128,
            num_classes=10,
            norm_cfg=None,
        ),
        mask_roi_extractor=dict(out_channels=64, featmap_strides=[4, 8], finest_scale=28),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=32, num_classes=10),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=300, max_per_img=100),
        rcnn=dict(sampler=dict(num=48)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100)),
)
train_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=LoadAnnotations, with_bbox=True, with_mask=True),
    dict(type=RandomFlip, prob=0.5),
    dict(type=PackDetInputs),
]
test_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=Resize, scale_factor=1.0),  # mmdet's heads want the factor of a Resize
    dict(type=LoadAnnotations, with_bbox=True, with_mask=True),
    dict(type=PackDetInputs, meta_keys=test_keys),
]
tta_pipeline[1].update(
    transforms=[
        [dict(type=Resize, scale_factor=r) for r in tta_ratios],
        *tta_pipeline[1]['transforms'][1:],
    ]
)
train_dataloader.update(
    batch_size=16,
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        data_root='data/scenes/',
        ann_file='annotations/train.json',
        data_prefix=dict(img='images/train/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader.update(
    batch_size=20,
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        data_root='data/scenes/',
        ann_file='annotations/val.json',
        data_prefix=dict(img='images/val/'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    val_dataloader,
    dataset=dict(
        val_dataloader['dataset'],
        ann_file='annotations/test.json',
        data_prefix=dict(img='images/test/'),
    ),
)
val_evaluator = dict(
    type=CocoMetric, ann_file='data/scenes/annotations/val.json', metric=['bbox', 'segm']
)
test_evaluator = dict(val_evaluator, ann_file='data/scenes/annotations/test.json')

train_cfg.update(max_iters=400, val_interval=400)
optim_wrapper.update(
    optimizer=dict(lr=1e-3, weight_decay=0.05, fused=False),
    paramwise_cfg=dict(layer_decay_rate=0.9),
)
param_scheduler = dict(type=WarmupLinearLR, warmup=40, start_lr=1e-5, min_lr=0.0, by_epoch=False)
auto_scale_lr = dict(base_batch_size=16)
default_hooks.update(checkpoint=dict(interval=400))
