"""ADE20K (tools/prepare_ade20k.py) at 512 px, and testing at six scales with flips."""

from mmcv.transforms import RandomFlip, RandomResize, Resize, TestTimeAug
from mmengine.config import read_base
from mmengine.dataset import InfiniteSampler, pseudo_collate
from mmseg.datasets import PackSegInputs, PhotoMetricDistortion, RandomCrop
from mmseg.evaluation import IoUMetric
from mmseg.models import SegTTAModel

from beitv2_mm.datasets import LoadImageFromFile
from beitv2_mm.segmentation import ADE20K, LoadMask

with read_base():
    from .loaders import *

data_root = 'data/ade/ADEChallengeData2016'
train_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=LoadMask),
    dict(
        type=RandomResize,
        scale=(2048, 512),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
        resize_type=Resize,
    ),
    dict(type=RandomCrop, crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type=RandomFlip, prob=0.5),
    dict(type=PhotoMetricDistortion),
    dict(type=PackSegInputs),
]
test_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=Resize, scale=(2048, 512), keep_ratio=True),
    dict(type=LoadMask),  # after Resize: predictions are compared at the mask's own size
    dict(type=PackSegInputs),
]
tta_ratios = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
tta_pipeline = [
    dict(type=LoadImageFromFile),
    dict(
        type=TestTimeAug,
        transforms=[
            [
                dict(type=Resize, scale=(int(2048 * r), int(512 * r)), keep_ratio=True)
                for r in tta_ratios
            ],
            [
                dict(type=RandomFlip, prob=0.0, direction='horizontal'),
                dict(type=RandomFlip, prob=1.0, direction='horizontal'),
            ],
            [dict(type=LoadMask)],
            [dict(type=PackSegInputs)],
        ],
    ),
]
tta_model = dict(type=SegTTAModel)

train_dataloader.update(
    batch_size=2,
    num_workers=4,
    drop_last=False,
    sampler=dict(type=InfiniteSampler),
    collate_fn=dict(type=pseudo_collate),
    dataset=dict(
        type=ADE20K,
        data_root=data_root,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        reduce_zero_label=True,
        pipeline=train_pipeline,
    ),
)
val_dataloader.update(
    batch_size=1,
    num_workers=4,
    pin_memory=False,
    collate_fn=dict(type=pseudo_collate),
    dataset=dict(
        type=ADE20K,
        data_root=data_root,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        reduce_zero_label=True,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type=IoUMetric, iou_metrics=['mIoU'])
test_dataloader = val_dataloader
test_evaluator = val_evaluator
