"""Fine-tuning on ImageNet-1k, large, from MIM of 1600 epochs and ImageNet-21k.

Command: bash tools/dist_train.sh \
    configs/classification/beitv2_large_8xb128_20e_in1k_from_in21k.py 8
Hardware: 8 GPUs, 128 images each. Published: 88.4 top-1, 98.6 top-5. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.classifier import *

model.update(
    backbone=dict(
        arch='large',
        drop_path_rate=0.25,
        init_cfg=dict(
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
            'beitv2_large_patch16_224_pt1k_ft21k.pth',
        ),
    ),
    head=dict(in_channels=1024),
    train_cfg=None,  # neither mixup nor cutmix
)
train_cfg.update(max_epochs=20)
optim_wrapper.update(optimizer=dict(lr=7e-5), paramwise_cfg=dict(layer_decay_rate=0.8))
param_scheduler.update(warmup=5)
