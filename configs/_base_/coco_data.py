"""COCO at 1024 px with large-scale jitter, and testing at three scales with flips."""

from mmcv.transforms import RandomResize, TestTimeAug
from mmdet.datasets.transforms import (
    FilterAnnotations,
    LoadAnnotations,
    PackDetInputs,
    Pad,
    RandomCrop,
    RandomFlip,
    Resize,
)
from mmdet.evaluation import CocoMetric
from mmengine.config import read_base
from mmengine.dataset import InfiniteSampler, pseudo_collate

from beitv2_mm.datasets import LoadImageFromFile
from beitv2_mm.detection import CocoFolder, MaskTTAModel

with read_base():
    from .loaders import *

size = (1024, 1024)
test_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
train_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=LoadAnnotations, with_bbox=True, with_mask=True),
    dict(type=RandomFlip, prob=0.5),
    dict(
        type=RandomResize, resize_type=Resize, scale=size, ratio_range=(0.1, 2.0), keep_ratio=True
    ),
    dict(
        type=RandomCrop,
        crop_type='absolute',
        crop_size=size,
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    dict(type=FilterAnnotations, min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type=Pad, size=size),
    dict(type=PackDetInputs),
]
test_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=Resize, scale=size, keep_ratio=True),
    dict(type=LoadAnnotations, with_bbox=True, with_mask=True),
    dict(type=PackDetInputs, meta_keys=test_keys),
]
tta_ratios = (0.75, 1.0, 1.25)
tta_pipeline = [
    dict(type=LoadImageFromFile),
    dict(
        type=TestTimeAug,
        transforms=[
            [
                dict(type=Resize, scale=(int(size[0] * r), int(size[1] * r)), keep_ratio=True)
                for r in tta_ratios
            ],
            [dict(type=RandomFlip, prob=0.0), dict(type=RandomFlip, prob=1.0)],
            [dict(type=LoadAnnotations, with_bbox=True, with_mask=True)],
            [dict(type=PackDetInputs, meta_keys=(*test_keys, 'flip', 'flip_direction'))],
        ],
    ),
]
tta_model = dict(
    type=MaskTTAModel, tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
)

train_dataloader.update(
    batch_size=1,
    sampler=dict(type=InfiniteSampler),
    collate_fn=dict(type=pseudo_collate),
    dataset=dict(
        type=CocoFolder,
        data_root='data/coco/',
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
    ),
)
val_dataloader.update(
    batch_size=1,
    collate_fn=dict(type=pseudo_collate),
    dataset=dict(
        type=CocoFolder,
        data_root='data/coco/',
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type=CocoMetric,
    ann_file='data/coco/annotations/instances_val2017.json',
    metric=['bbox', 'segm'],
)
test_evaluator = val_evaluator
