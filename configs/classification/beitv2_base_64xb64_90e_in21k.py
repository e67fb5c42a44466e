"""Intermediate fine-tuning on ImageNet-21k, base, from MIM of 1600 epochs.

Command: NNODES=8 bash tools/dist_train.sh configs/classification/beitv2_base_64xb64_90e_in21k.py 8
Hardware: 64 GPUs, 64 images each.
Published: 86.5 top-1 after fine-tuning on ImageNet-1k. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.classifier_in21k import *

model.update(
    backbone=dict(
        drop_path_rate=0.1,
        init_cfg=dict(
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
            'beitv2_base_patch16_224_pt1k.pth',
        ),
    ),
)
