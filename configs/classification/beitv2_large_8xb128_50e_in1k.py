"""Fine-tuning on ImageNet-1k, large, from MIM of 300 epochs.

Command: bash tools/dist_train.sh configs/classification/beitv2_large_8xb128_50e_in1k.py 8
Hardware: 8 GPUs, 128 images each. Published: 86.6 top-1. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.classifier import *

model.update(
    backbone=dict(
        arch='large',
        drop_path_rate=0.2,
        init_cfg=dict(
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
            'beitv2_large_patch16_224_pt1k_300e.pth',
        ),
    ),
    head=dict(in_channels=1024),
)
train_cfg.update(max_epochs=50)
optim_wrapper.update(paramwise_cfg=dict(layer_decay_rate=0.8))
param_scheduler.update(warmup=5)
