"""Linear probe on ImageNet-1k, large, MIM of 1600 epochs.

Command: bash tools/dist_train.sh configs/classification/linear_large_8xb128_50e_in1k.py 8
Hardware: 8 GPUs, 128 images each. Published: nothing. Measured here: nothing.

The recipe is ours (AdamW without weight decay on normalised features).
"""

from mmengine.config import read_base

with read_base():
    from .._base_.linear_probe import *

model.update(
    backbone=dict(
        arch='large',
        frozen_stages=24,
        init_cfg=dict(
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
            'beitv2_large_patch16_224_pt1k.pth',
        ),
    ),
    head=dict(in_channels=1024),
)
