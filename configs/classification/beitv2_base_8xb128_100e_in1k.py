"""Fine-tuning on ImageNet-1k, base, from MIM of 300 epochs.

Command: bash tools/dist_train.sh configs/classification/beitv2_base_8xb128_100e_in1k.py 8
Hardware: 8 GPUs, 128 images each. Published: 85.0 top-1. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.classifier import *

model.update(
    backbone=dict(
        drop_path_rate=0.1,
        init_cfg=dict(
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
            'beitv2_base_patch16_224_pt1k_300e.pth',
        ),
    ),
)
train_cfg.update(max_epochs=100)
optim_wrapper.update(optimizer=dict(lr=5e-4), paramwise_cfg=dict(layer_decay_rate=0.65))
param_scheduler[0].update(start_factor=1e-6 / 5e-4, end=20)
param_scheduler[1].update(eta_min_ratio=1e-6 / 5e-4, begin=20, end=100)
