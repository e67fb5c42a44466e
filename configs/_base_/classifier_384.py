"""Further fine-tuning at 384 px of a classifier trained at 224 px; evaluation without crop."""

from mmcv.transforms import Resize
from mmengine.config import read_base
from mmpretrain.datasets import PackInputs

from beitv2_mm.datasets import LoadImageFromFile

with read_base():
    from .classifier import *

model.update(
    backbone=dict(img_size=384, init_cfg=None),  # load_from gives the head too
    train_cfg=None,  # neither mixup nor cutmix
)
train_pipeline[1].update(scale=384)
test_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=Resize, scale=(384, 384), interpolation='bicubic', backend='pillow'),
    dict(type=PackInputs),
]
train_dataloader.update(batch_size=32, dataset=dict(pipeline=train_pipeline))
val_dataloader.update(batch_size=32, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

train_cfg.update(max_epochs=20)
optim_wrapper.update(
    optimizer=dict(lr=2e-5, weight_decay=1e-8), paramwise_cfg=dict(layer_decay_rate=0.85)
)
param_scheduler.update(warmup=5)
auto_scale_lr.update(base_batch_size=512)
