"""Small masked image modelling for CIFAR-10 (32 px, 4-px patches, 26 of 64 masked).

Command: python tools/quickstart.py, which runs it with the paths of its data and tokenizer.
Hardware: two CPU cores, some minutes. Measured figures: README.md.
"""

from mmcv.transforms import RandomFlip
from mmengine.config import read_base
from mmengine.hooks import LoggerHook
from mmengine.optim import OptimWrapper
from mmpretrain.datasets import PackInputs
from torch.optim import AdamW

from beitv2_mm.datasets import BlockwiseMask, LoadImageFromFile
from beitv2_mm.engine import (
    AttentionPicturesHook,
    MIMMetric,
    PredictionPicturesHook,
    ResumableEpochBasedTrainLoop,
    WarmupCosineLR,
)
from beitv2_mm.models import (
    BEiTV2Backbone,
    BEiTV2Pretrainer,
    MIMHead,
    PatchAggregationNeck,
)

with read_base():
    from .._base_.cifar10_data import *
    from .._base_.cifar10_tokenizer import *
    from .._base_.default_runtime import *

wide = dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.1)  # 0.02 is for width 768
model = dict(
    type=BEiTV2Pretrainer,
    backbone=dict(
        type=BEiTV2Backbone,
        arch=dict(embed_dims=128, num_layers=4, num_heads=4),
        img_size=32,
        patch_size=4,
        position='shared',
        out_type='raw',
        with_mask_token=True,
        init_cfg=wide,
    ),
    neck=dict(type=PatchAggregationNeck, early_layer=3, num_layers=1, init_cfg=wide),
    head=dict(type=MIMHead, num_codes=512),
    tokenizer=tokenizer,
)

block_mask = dict(type=BlockwiseMask, patch_size=4, num_masked=26, min_block=4, min_aspect=0.3)
train_dataloader.update(
    batch_size=32,
    dataset=dict(
        samples_per_class=3600,
        pipeline=[
            dict(type=LoadImageFromFile),
            dict(type=RandomFlip, prob=0.5),
            block_mask,
            dict(type=PackInputs),
        ],
    ),
)
masked_val = [dict(type=LoadImageFromFile), block_mask, dict(type=PackInputs)]
val_dataloader.update(dataset=dict(pipeline=masked_val))
test_dataloader.update(dataset=dict(pipeline=masked_val))
val_evaluator = dict(type=MIMMetric)
test_evaluator = val_evaluator

train_cfg = dict(type=ResumableEpochBasedTrainLoop, max_epochs=3, val_interval=3)
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=3.0),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={
            'cls_token': dict(decay_mult=0.0),
            'relative_position_bias_table': dict(lr_mult=10.0),  # zero at the start, few steps
        },
    ),
)
param_scheduler = dict(
    type=WarmupCosineLR, warmup=0.15, start_lr=3e-5, min_lr=3e-5, convert_to_iter_based=True
)
auto_scale_lr = dict(base_batch_size=32)

default_hooks.update(logger=dict(type=LoggerHook, interval=20))
custom_hooks = custom_hooks + [
    dict(type=PredictionPicturesHook, num_images=250),
    dict(type=AttentionPicturesHook),
]
