"""Intermediate fine-tuning on ImageNet-21k, large, from MIM of 1600 epochs.

Command: NNODES=8 bash tools/dist_train.sh configs/classification/beitv2_large_64xb64_90e_in21k.py 8
Hardware: 64 GPUs, 64 images each.
Published: 88.4 top-1 after fine-tuning on ImageNet-1k. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.classifier_in21k import *

model.update(
    backbone=dict(
        arch='large',
        drop_path_rate=0.2,
        init_cfg=dict(
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
            'beitv2_large_patch16_224_pt1k.pth',
        ),
    ),
    head=dict(in_channels=1024),
)
