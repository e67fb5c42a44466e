"""Fine-tuning on ImageNet-1k, base, from MIM of 1600 epochs and ImageNet-21k.

Command: bash tools/dist_train.sh configs/classification/beitv2_base_8xb128_30e_in1k_from_in21k.py 8
Hardware: 8 GPUs, 128 images each. Published: 86.5 top-1, 98.0 top-5. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.classifier import *

model.update(
    backbone=dict(
        drop_path_rate=0.1,
        init_cfg=dict(
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
            'beitv2_base_patch16_224_pt1k_ft21k.pth',
        ),
    ),
    train_cfg=None,  # neither mixup nor cutmix
)
train_cfg.update(max_epochs=30)
optim_wrapper.update(optimizer=dict(lr=5e-5), paramwise_cfg=dict(layer_decay_rate=0.75))
