"""Linear probe of the quickstart's network on CIFAR-10, 250 labels a class, on the test images.

Command: python tools/train.py configs/classification/linear_tiny_1xb32_8e_cifar10.py \
    --cfg-options model.backbone.init_cfg.1.checkpoint=quickstart_out/pretrain/epoch_3.pth
    (a random network for comparison: --cfg-options model.backbone.init_cfg.1.checkpoint=None)
Hardware: two CPU cores, one to two minutes. Published: nothing. Measured here: see README.md.
"""

from mmengine.config import read_base
from mmengine.optim import OptimWrapper
from mmpretrain.models import CrossEntropyLoss
from torch.optim import AdamW

with read_base():
    from .beitv2_tiny_1xb32_8e_cifar10 import *

model.update(backbone=dict(frozen_stages=4), head=dict(init_cfg=dict(std=0.01)))
model.head.loss = dict(type=CrossEntropyLoss)
val_dataloader = test_dataloader
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=2e-3, betas=(0.9, 0.999), weight_decay=0.0),
)
param_scheduler.update(warmup=0, min_lr=0.0)
default_hooks.update(checkpoint=dict(interval=8))
