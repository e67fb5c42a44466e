"""Linear probe on ImageNet-1k: everything frozen but one linear layer; flips and crops only.

The layer sees the mean patch token after a LayerNorm that is not trained, so no batch norm is
needed to bring features of any network to one scale. Probing an earlier block is often better
after masked image modelling: model.backbone.out_indices=8.
"""

from mmcv.transforms import RandomFlip
from mmengine.config import read_base
from mmengine.optim import OptimWrapper
from mmpretrain.datasets import PackInputs, RandomResizedCrop
from mmpretrain.models import CrossEntropyLoss

from beitv2_mm.datasets import LoadImageFromFile

with read_base():
    from .classifier import *

model.update(
    backbone=dict(frozen_stages=12, drop_path_rate=0.0),
    head=dict(init_cfg=dict(std=0.01)),
    train_cfg=None,  # neither mixup nor cutmix
)
model.head.loss = dict(type=CrossEntropyLoss)

train_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=RandomResizedCrop, scale=224, interpolation='bicubic', backend='pillow'),
    dict(type=RandomFlip, prob=0.5),
    dict(type=PackInputs),
]
train_dataloader.update(dataset=dict(pipeline=train_pipeline))

train_cfg.update(max_epochs=50)
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0, fused=True),
)
param_scheduler.update(warmup=0, min_lr=0.0)
